
-- A stream spends more than it reserved: takes what it used, and some ahead.
--
-- KEYS  1 the key's buckets  2 the charge's record
-- ARGV  1 keep_ms  2 least  3-6 tokens: their cost is what is needed
--       7 most  8 since_us
-- Gives { 1, ahead, us until all is there that anybody took }, or
--       { 0, most, 0 }: there is no such charge

local record = load_record(KEYS[2])
local least, most = tonumber(ARGV[2]), tonumber(ARGV[7])

if not record then
  return { 0, most, 0 }
end

local state = load(KEYS[1], ARGV[8])
local tokens, need = bucket_of(state, 1, 3)
local left = level(tokens) - need
local ahead = left > 0 and max(math.floor(left / 8), 1) or 0

ahead = max(min(ahead, most), least)

take(tokens, need + ahead)
record.tokens = record.tokens + need + ahead

save(KEYS[1], state)
save_record(KEYS[2], ARGV[1], record)

return { 1, ahead, delay(tokens, 0) }
