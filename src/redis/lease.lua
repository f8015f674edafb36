
-- Tokens and requests that a node gives out by itself.
--
-- KEYS  1 the key's buckets  2 the question's record
-- ARGV  1 keep_ms  2 0  3-6 tokens  7-10 requests: their cost is how many
--       are wanted at most, below 0: given back  11 since_us
--       12 tokens  13 requests that were used: taken in any case
-- Gives { 1, tokens, requests, levels, full in }

local state = load(KEYS[1], ARGV[11])
local tokens, want = bucket_of(state, 1, 3)
local requests, count = bucket_of(state, 2, 7)
local debt = { tonumber(ARGV[12]) or 0, tonumber(ARGV[13]) or 0 }
local record, ended = load_record(KEYS[2])

if ended then
  return answer(state, 1, 0, 0)
end

-- asked again: the same answer

if record then
  return answer(state, 1, record.tokens - debt[1], record.requests - debt[2])
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
  save_record(KEYS[2], ARGV[1], {
    tokens = grant[1] + debt[1], requests = grant[2] + debt[2],
    starts = { 0, 0 },
  })
end

return answer(state, 1, max(grant[1], 0), max(grant[2], 0))
