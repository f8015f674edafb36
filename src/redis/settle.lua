
-- Ends a charge: its buckets are moved by what it came to less what it took.
--
-- KEYS  1 the budget
-- ARGV  1 charge  2 keep_ms  3 mode: 1 the reserve may still come and takes
--       nothing then  4-7 tokens  8-11 requests: their cost is the final one
--       12 since_us
-- Gives { 1 or 0, level of tokens, level of requests }; 0: there was none

local state = load(ARGV[12])
local tokens, used = bucket_of(state, 1, 4)
local requests, count = bucket_of(state, 2, 8)
local record = state.record
local gone = ARGV[3] == '1' and not state.ended and '-' or nil

if not record then
  if gone then
    save(state, gone, ARGV[2])
  end

  return { 0, 0, 0 }
end

take(tokens, used - record.tokens)
take(requests, count - record.requests)

save(state, gone, ARGV[2])

if not gone then
  redis.call('HDEL', KEYS[1], ARGV[1])
end

return { 1, level(tokens), level(requests) }
