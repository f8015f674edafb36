
-- A stream spends more than it reserved: takes what it used, and some ahead.
--
-- KEYS  1 the budget
-- ARGV  its cost is what is needed
--       of its own: least and most that is taken ahead
-- Gives { 1, ahead, us until all is there that anybody took }, or
--       { 0, most, 0 }: there is no such charge

local least, most = first, second

if not took then
  return pack('<ddd', 0, most, 0)
end

local left = (rate > 0 and burst - used or 0) - cost
local ahead = left > 0 and math.max(math.floor(left / 8), 1) or 0

ahead = math.max(math.min(ahead, most), least)

if rate > 0 then
  used, credit = take(used, credit, cost + ahead)
end

ends = ends + KEEP_US
text = pack('<ddddd', took + cost + ahead, took_r, start, start_r, ends)

answer = pack('<ddd', 1, ahead,
              rate > 0 and refilled_in(used - burst, credit, at, per) or 0)
