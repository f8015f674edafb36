
-- Ends a charge: its buckets are moved by what it came to less what it took.
--
-- KEYS  1 the key's buckets  2 the charge's record
-- ARGV  1 keep_ms  2 mode: 1 the reserve may still come and takes nothing
--       then  3-6 tokens  7-10 requests: their cost is the final one
--       11 since_us
-- Gives { 1 or 0, level of tokens, level of requests }; 0: there was none

local record, ended = load_record(KEYS[2])

if not record then
  if not ended and ARGV[2] == '1' then
    redis.call('SET', KEYS[2], '-', 'PX', ARGV[1])
  end

  return { 0, 0, 0 }
end

local state = load(KEYS[1], ARGV[11])
local tokens, used = bucket_of(state, 1, 3)
local requests, count = bucket_of(state, 2, 7)

take(tokens, used - record.tokens)
take(requests, count - record.requests)

save(KEYS[1], state)

if ARGV[2] == '1' then
  redis.call('SET', KEYS[2], '-', 'PX', ARGV[1])
else
  redis.call('DEL', KEYS[2])
end

return { 1, level(tokens), level(requests) }
