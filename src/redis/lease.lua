
-- Tokens and requests that a node gives out by itself.
--
-- KEYS  1 the budget
-- ARGV  their costs are how many are wanted at most, below 0: given back
--       of its own: tokens and requests that were used: taken in any case
-- Gives { 1, tokens, requests, levels, full in }

local spent, sent = first, second

status, first, second = 1, 0, 0

if ended then
  -- it gets nothing

elseif took then

  -- asked again: the same answer

  first, second = took - spent, took_r - sent

else
  if rate > 0 then
    used, credit = take(used, credit, spent)
    first = math.min(cost, math.max(burst - used, 0))
  end

  if rate_r > 0 then
    used_r, credit_r = take(used_r, credit_r, sent)
    second = math.min(cost_r, math.max(burst_r - used_r, 0))
  end

  -- one without the other is of no use

  if first == 0 and cost > 0 or second == 0 and cost_r > 0 then
    first, second = math.min(first, 0), math.min(second, 0)
  end

  if rate > 0 then
    used, credit = take(used, credit, first)
  end

  if rate_r > 0 then
    used_r, credit_r = take(used_r, credit_r, second)
  end

  -- what is given back has ended: said again, it moves nothing

  if cost >= 0 and cost_r >= 0 then
    text = pack('<ddddd', first + spent, second + sent, 0, 0, ends)
  else
    text = pack('<d', ends)
  end

  first, second = math.max(first, 0), math.max(second, 0)
end
