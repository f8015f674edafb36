
-- Ends a charge: its buckets are moved by what it came to less what it took.
--
-- KEYS  1 the budget
-- ARGV  their costs are the final ones
--       of its own: 1: the reserve may still come, and takes nothing then
-- Gives { 1 or 0, level of tokens, level of requests }; 0: there was none

local late = first == 1 and not ended

if late then
  text = pack('<d', ends)
end

if took then
  if rate > 0 then
    used, credit = take(used, credit, cost - took)
  end

  if rate_r > 0 then
    used_r, credit_r = take(used_r, credit_r, cost_r - took_r)
  end

  if not late then
    call('HDEL', key, id)
    room = room + 1
  end

  answer = pack('<ddd', 1, rate > 0 and burst - used or 0,
                rate_r > 0 and burst_r - used_r or 0)

elseif late then
  answer = pack('<ddd', 0, 0, 0)
else
  return pack('<ddd', 0, 0, 0)
end
