
-- Tokens and requests that a node gives out by itself.
--
-- KEYS  1 the budget
-- ARGV  1 question  2 keep_ms  3 0  4-7 tokens  8-11 requests: their cost is
--       how many are wanted at most, below 0: given back  12 since_us
--       13 tokens  14 requests that were used: taken in any case
-- Gives { 1, tokens, requests, levels, full in }

local state = load(ARGV[12])
local tokens, want = bucket_of(state, 1, 4)
local requests, count = bucket_of(state, 2, 8)
local debt = { tonumber(ARGV[13]) or 0, tonumber(ARGV[14]) or 0 }
local record = state.record

if state.ended then
  return no_charge(state, 1, 0, 0)
end

-- asked again: the same answer

if record then
  return no_charge(state, 1, record.tokens - debt[1], record.requests - debt[2])
end

take(tokens, debt[1])
take(requests, debt[2])

local grant = { min(want, max(level(tokens), 0)),
                min(count, max(level(requests), 0)) }

-- one without the other is of no use

if (grant[1] == 0 and want > 0 and tokens.rate > 0)
   or (grant[2] == 0 and count > 0 and requests.rate > 0)
then
  grant = { min(grant[1], 0), min(grant[2], 0) }
end

take(tokens, grant[1])
take(requests, grant[2])

-- what is given back is not asked again

if want >= 0 and count >= 0 then
  save_charge(state, {
    tokens = grant[1] + debt[1], requests = grant[2] + debt[2],
    starts = { 0, 0 },
  }, ARGV[2])
else
  save(state)
end

return answer(state, 1, max(grant[1], 0), max(grant[2], 0))
