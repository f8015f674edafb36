
-- A stream spends more than it reserved: takes what it used, and some ahead.
--
-- KEYS  1 the budget
-- ARGV  its cost is what is needed
--       of its own: least and most that is taken ahead
-- Gives { 1, ahead, us until all is there that anybody took }, or
--       { 0, most, 0 }: there is no such charge

local state, tokens, need, _, _, least, most = load()
local record = state.record

if not record then
  return { 0, most, 0 }
end

local left = level(tokens) - need
local ahead = left > 0 and max(math.floor(left / 8), 1) or 0

ahead = max(min(ahead, most), least)

take(tokens, need + ahead)

save(state, pack('<dddd', record.tokens + need + ahead, record.requests,
                 record.start, record.start_r), KEEP_MS)

return { 1, ahead, refilled_in(tokens, tokens.used - tokens.burst) }
