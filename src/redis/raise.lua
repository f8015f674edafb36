
-- A stream spends more than it reserved: takes what it used, and some ahead.
--
-- KEYS  1 the budget
-- ARGV  1 charge  2 keep_ms  3 least  4-7 tokens: their cost is what is
--       needed  8 most  9 since_us
-- Gives { 1, ahead, us until all is there that anybody took }, or
--       { 0, most, 0 }: there is no such charge

local state = load(ARGV[9])
local tokens, need = bucket_of(state, 1, 4)
local record = state.record
local least, most = tonumber(ARGV[3]), tonumber(ARGV[8])

if not record then
  return { 0, most, 0 }
end

local left = level(tokens) - need
local ahead = left > 0 and max(math.floor(left / 8), 1) or 0

ahead = max(min(ahead, most), least)

take(tokens, need + ahead)
record.tokens = record.tokens + need + ahead

save_charge(state, record, ARGV[2] + KEEP_MS)

return { 1, ahead, delay(tokens, 0) }
