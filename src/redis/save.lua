
-- The state is written whatever was decided: the next visit's since is the
-- time to this one.

local full = refilled_in(used, credit, at, per)
local full_r = refilled_in(used_r, credit_r, at_r, per_r)
local lives = now + (full > full_r and full or full_r) + KEEP_US

if text then
  if ends > lives then
    lives = ends
  end

  if not charge then
    room = room - 1
  end
end


-- charges that nobody ended are dropped when the number of charges has
-- doubled since they were looked for

if room < 0 then
  local all, left = call('HGETALL', key), 0

  for i = 1, #all, 2 do
    local name, value = all[i], all[i + 1]

    if #name > 1 then
      left = left + 1

      if (#value == 8 or #value == 40)
         and read('<d', value, #value - 7) <= now
      then
        call('HDEL', key, name)
        left = left - 1
      end
    end
  end

  room = math.max(left, 64)
end


-- Redis is told when it expires no more often than each five minutes

local tell = lives - 300e6 > expires

if tell then
  expires = lives
end

tokens = pack('<ddddddd', now, expires, room, used, credit, at, per)

if requests or rate_r > 0 then
  requests = pack('<dddd', used_r, credit_r, at_r, per_r)
end

if not requests and text then
  call('HSET', key, 't', tokens, id, text)

elseif not requests then
  call('HSET', key, 't', tokens)

elseif text then
  call('HSET', key, 't', tokens, 'r', requests, id, text)

else
  call('HSET', key, 't', tokens, 'r', requests)
end

if tell then
  call('PEXPIRE', key, math.ceil((lives - now) / 1000))
end

return answer or pack('<ddddddd', status, first, second,
                      rate > 0 and burst - used or 0,
                      rate_r > 0 and burst_r - used_r or 0,
                      rate > 0 and full or 0, rate_r > 0 and full_r or 0)
                 .. reason
