
-- Takes tokens and requests for a charge, or nothing.
--
-- KEYS  1 the key's buckets  2 the charge's record  3 the policy's own key
-- ARGV  1 keep_ms  2 wait_us  3-6 tokens  7-10 requests  11 since_us
--       12 key (SHA-1)  13 model  14 estimated prompt  15 zone
-- Gives { status, delay of tokens, delay of requests, levels, full in }
--       1 taken, 0 would have to wait too long, 2 has ended, 3 denied: reason

local wait = tonumber(ARGV[2])
local state = load(KEYS[1], ARGV[11])
local tokens, need = bucket_of(state, 1, 3)
local requests, count = bucket_of(state, 2, 7)
local record, ended = load_record(KEYS[2])

if ended then
  return answer(state, 2, 0, 0)
end

-- asked again: what is left of the same answer

if record then
  return answer(state, 1, max(record.starts[1] - state.now, 0),
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
    key = ARGV[12], model = ARGV[13], zone = ARGV[15],
    estimated = tonumber(ARGV[14]), reserved = need,
    now = state.now / 1e6, wait = wait / 1e6, store = KEYS[3],
    tokens = numbers(tokens, need, delays[1]),
    requests = numbers(requests, count, delays[2]),
  })

  if not ok then
    error('LLMPOLICY ' .. (type(verdict) == 'table' and verdict.err
                           or tostring(verdict)), 0)
  end

  -- its own key lives for a week unless it says how long

  if redis.call('PTTL', KEYS[3]) == -1 then
    redis.call('PEXPIRE', KEYS[3], '604800000')
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
    local denied = answer(state, 3, delays[1], delays[2])
    denied[8] = detail
    return denied
  end

  if verdict == 'wait' and delays[1] >= 0 then
    delays[1] = max(delays[1], detail)
  end
end


if delays[1] < 0 or delays[1] > wait or delays[2] < 0 or delays[2] > wait then
  return answer(state, 0, delays[1], delays[2])
end

take(tokens, need)
take(requests, count)

save_record(KEYS[2], ARGV[1], {
  tokens = need, requests = count,
  starts = { state.now + delays[1], state.now + delays[2] },
})

return answer(state, 1, delays[1], delays[2])
