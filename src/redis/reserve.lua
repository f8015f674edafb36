
-- Takes tokens and requests for a charge, or nothing.
--
-- KEYS  1 the budget  2 the policy's own key
-- ARGV  of its own: wait_us
--       of a policy: 3 key (SHA-1)  4 model  5 estimated prompt  6 zone
-- Gives { status, delay of tokens, delay of requests, levels, full in }
--       1 taken, 0 would have to wait too long, 2 has ended, 3 denied: reason
--       A delay: microseconds; 0: now; -1: never

local state, tokens, need, requests, count, wait = load()
local record = state.record


-- Nothing is taken: the state is written all the same, as the next visit's
-- since_us is the time to this one.

if state.ended then
  save(state)
  return answer(2, 0, 0, tokens, requests)
end

-- asked again: what is left of the same answer

if record then
  save(state)
  return answer(1, max(record.start - state.now, 0),
                max(record.start_r - state.now, 0), tokens, requests)
end

local first, second = -1, -1

if need <= tokens.burst then
  first = refilled_in(tokens, need - level(tokens))
end

if count <= requests.burst then
  second = refilled_in(requests, count - level(requests))
end


-- The operator's policy may narrow what the budget allows, never widen it.

if policy then

  local function numbers(bucket, cost, delay_us)
    return { rate = bucket.rate, period = bucket.period, burst = bucket.burst,
             level = level(bucket), cost = cost,
             delay = delay_us < 0 and math.huge or delay_us / 1e6 }
  end

  local ok, verdict, detail = pcall(policy, {
    key = ARGV[3], model = ARGV[4], zone = ARGV[6],
    estimated = tonumber(ARGV[5]), reserved = need,
    now = state.now / 1e6, wait = wait / 1e6, store = KEYS[2],
    tokens = numbers(tokens, need, first),
    requests = numbers(requests, count, second),
  })

  if not ok then
    error('LLMPOLICY ' .. (type(verdict) == 'table' and verdict.err
                           or tostring(verdict)), 0)
  end

  -- its own key lives for a week unless it says how long

  if redis.call('PTTL', KEYS[2]) == -1 then
    redis.call('PEXPIRE', KEYS[2], '604800000')
  end

  if verdict == 'wait' and type(detail) == 'number' and detail >= 0
     and detail < 1e9
  then
    if first >= 0 then
      first = max(first, math.ceil(detail * 1e6))
    end

  elseif verdict == 'deny' and type(detail) == 'string' then
    save(state)

    local denied = answer(3, first, second, tokens, requests)
    denied[8] = string.sub(detail, 1, 200)
    return denied

  elseif verdict ~= true then
    error('LLMPOLICY neither true, nor "wait" and seconds, nor "deny" and '
          .. 'a reason', 0)
  end
end


if first < 0 or first > wait or second < 0 or second > wait then
  save(state)
  return answer(0, first, second, tokens, requests)
end

take(tokens, need)
take(requests, count)

save(state, pack('<dddd', need, count, state.now + first, state.now + second),
     KEEP_MS)

return answer(1, first, second, tokens, requests)
