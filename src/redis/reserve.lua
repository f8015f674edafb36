
-- Takes tokens and requests for a charge, or nothing.
--
-- KEYS  1 the budget  2 the policy's own key
-- ARGV  1 charge  2 keep_ms  3 wait_us  4-7 tokens  8-11 requests
--       12 since_us  13 key (SHA-1)  14 model  15 estimated prompt  16 zone
-- Gives { status, delay of tokens, delay of requests, levels, full in }
--       1 taken, 0 would have to wait too long, 2 has ended, 3 denied: reason

local wait = tonumber(ARGV[3])
local state = load(ARGV[12])
local tokens, need = bucket_of(state, 1, 4)
local requests, count = bucket_of(state, 2, 8)
local record = state.record

if state.ended then
  return no_charge(state, 2, 0, 0)
end

-- asked again: what is left of the same answer

if record then
  return no_charge(state, 1, max(record.starts[1] - state.now, 0),
                   max(record.starts[2] - state.now, 0))
end

local delays = { delay(tokens, need), delay(requests, count) }


-- The operator's policy may narrow what the budget allows, never widen it.

local function numbers(bucket, cost, delay_us)
  return { rate = bucket.rate, period = bucket.period, burst = bucket.burst,
           level = level(bucket), cost = cost,
           delay = delay_us < 0 and math.huge or delay_us / 1e6 }
end


local function ask_policy()
  local ok, verdict, detail = pcall(policy, {
    key = ARGV[13], model = ARGV[14], zone = ARGV[16],
    estimated = tonumber(ARGV[15]), reserved = need,
    now = state.now / 1e6, wait = wait / 1e6, store = KEYS[2],
    tokens = numbers(tokens, need, delays[1]),
    requests = numbers(requests, count, delays[2]),
  })

  if not ok then
    error('LLMPOLICY ' .. (type(verdict) == 'table' and verdict.err
                           or tostring(verdict)), 0)
  end

  -- its own key lives for a week unless it says how long

  if redis.call('PTTL', KEYS[2]) == -1 then
    redis.call('PEXPIRE', KEYS[2], '604800000')
  end

  if verdict == true then
    return 'allow'
  end

  if verdict == 'wait' and type(detail) == 'number' and detail >= 0
     and detail < 1e9
  then
    return 'wait', math.ceil(detail * 1e6)
  end

  if verdict == 'deny' and type(detail) == 'string' then
    return 'deny', string.sub(detail, 1, 200)
  end

  error('LLMPOLICY neither true, nor "wait" and seconds, nor "deny" and '
        .. 'a reason', 0)
end


if policy then
  local verdict, detail = ask_policy()

  if verdict == 'deny' then
    local denied = no_charge(state, 3, delays[1], delays[2])
    denied[8] = detail
    return denied
  end

  if verdict == 'wait' and delays[1] >= 0 then
    delays[1] = max(delays[1], detail)
  end
end


if delays[1] < 0 or delays[1] > wait or delays[2] < 0 or delays[2] > wait then
  return no_charge(state, 0, delays[1], delays[2])
end

take(tokens, need)
take(requests, count)

save_charge(state, {
  tokens = need, requests = count,
  starts = { state.now + delays[1], state.now + delays[2] },
}, ARGV[2] + KEEP_MS)

return answer(state, 1, delays[1], delays[2])
