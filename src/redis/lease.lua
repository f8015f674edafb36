
-- Tokens and requests that a node gives out by itself.
--
-- KEYS  1 the budget
-- ARGV  their costs are how many are wanted at most, below 0: given back
--       of its own: tokens and requests that were used: taken in any case
-- Gives { 1, tokens, requests, levels, full in }

local state, tokens, want, requests, count, spent, sent = load()
local record = state.record


-- one that has ended gets nothing; one that is asked again the same answer

if state.ended or record then
  save(state)

  return answer(1, record and record.tokens - spent or 0,
                record and record.requests - sent or 0, tokens, requests)
end

take(tokens, spent)
take(requests, sent)

local first = min(want, max(level(tokens), 0))
local second = min(count, max(level(requests), 0))

-- one without the other is of no use

if (first == 0 and want > 0 and tokens.rate > 0)
   or (second == 0 and count > 0 and requests.rate > 0)
then
  first, second = min(first, 0), min(second, 0)
end

take(tokens, first)
take(requests, second)

-- what is given back has ended: said again, it moves nothing

if want >= 0 and count >= 0 then
  save(state, pack('<dddd', first + spent, second + sent, 0, 0), 0)
else
  save(state, '', 0)
end

return answer(1, max(first, 0), max(second, 0), tokens, requests)
