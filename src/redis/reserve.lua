
-- Takes tokens and requests for a charge, or nothing.
--
-- KEYS  1 the budget  2 the policy's own key, where there is a policy
-- ARGV  of its own: wait_us
--       of a policy: 3 key (SHA-1)  4 model  5 estimated prompt  6 zone
-- Gives { status, delay of tokens, delay of requests, levels, full in }
--       1 taken, 0 would have to wait too long, 2 has ended, 3 denied: reason
--       A delay: microseconds; 0: now; -1: never

local wait = first

first, second = 0, 0

if rate > 0 then
  first = cost > burst and -1
          or refilled_in(cost - burst + used, credit, at, per)
end

if rate_r > 0 then
  second = cost_r > burst_r and -1
           or refilled_in(cost_r - burst_r + used_r, credit_r, at_r, per_r)
end


-- The operator's policy may narrow what the budget allows, never widen it.

if KEYS[2] and not ended and not took then

  if type(policy) ~= 'function' then
    error('LLMPOLICY it returns no function', 0)
  end

  local function numbers(rate, period, burst, used, cost, delay_us)
    return { rate = rate, period = rate > 0 and period or 1, burst = burst,
             level = rate > 0 and burst - used or 0, cost = cost,
             delay = delay_us < 0 and math.huge or delay_us / 1e6 }
  end

  local ok, verdict, detail = pcall(policy, {
    key = ARGV[3], model = ARGV[4], zone = ARGV[6],
    estimated = tonumber(ARGV[5]), reserved = cost,
    now = now / 1e6, wait = wait / 1e6, store = KEYS[2],
    tokens = numbers(rate, period, burst, used, cost, first),
    requests = numbers(rate_r, period_r, burst_r, used_r, cost_r, second),
  })

  -- what a command says begins with a word, in Redis 6 behind its place; what
  -- the policy says itself, with a place

  if not ok then
    local said = type(verdict) == 'table' and verdict.err
                 or tostring(verdict)

    said = string.match(said, '^@user_script: %d+: %-?(.*)') or said

    error((string.find(said, '^%u%u%u+ ') and 'LLMPOLICY redis: '
           or 'LLMPOLICY ') .. said, 0)
  end

  -- its own key lives for a week unless it says how long

  if call('PTTL', KEYS[2]) == -1 then
    call('PEXPIRE', KEYS[2], '604800000')
  end

  if verdict == 'wait' and type(detail) == 'number' and detail >= 0
     and detail < 1e9
  then
    detail = math.ceil(detail * 1e6)

    if rate == 0 then
      second = second < 0 and second or math.max(second, detail)
    else
      first = first < 0 and first or math.max(first, detail)
    end

  elseif verdict == 'deny' and type(detail) == 'string' then
    status, reason = 3, string.sub(detail, 1, 200)

  elseif verdict ~= true then
    error('LLMPOLICY neither true, nor "wait" and seconds, nor "deny" and '
          .. 'a reason', 0)
  end
end


if ended then
  status, first, second = 2, 0, 0

elseif took then

  -- asked again: what is left of the same answer

  status = 1
  first, second = math.max(start - now, 0), math.max(start_r - now, 0)

elseif status == 3 then
  -- denied

elseif first < 0 or first > wait or second < 0 or second > wait then
  status = 0

else
  status = 1

  if rate > 0 then
    used, credit = take(used, credit, cost)
  end

  if rate_r > 0 then
    used_r, credit_r = take(used_r, credit_r, cost_r)
  end

  ends = ends + KEEP_US
  text = pack('<ddddd', cost, cost_r, now + first, now + second, ends)
end
