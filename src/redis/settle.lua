
-- Ends a charge: its buckets are moved by what it came to less what it took.
--
-- KEYS  1 the budget
-- ARGV  their costs are the final ones
--       of its own: 1: the reserve may still come, and takes nothing then
-- Gives { 1 or 0, level of tokens, level of requests }; 0: there was none

local state, tokens, used, requests, count, late = load()
local record = state.record
local gone = late == 1 and not state.ended and '' or nil

if not record then
  if gone then
    save(state, gone, 0)
  end

  return { 0, 0, 0 }
end

take(tokens, used - record.tokens)
take(requests, count - record.requests)

if not gone then
  redis.call('HDEL', KEYS[1], ARGV[1])
  state.room = state.room + 1
end

save(state, gone, 0)

return { 1, level(tokens), level(requests) }
