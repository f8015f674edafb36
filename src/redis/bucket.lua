-- Copyright (C) the ngx_http_llm_stream_module authors
-- SPDX-License-Identifier: BSD-2-Clause

-- The two buckets of a key, tokens and requests; put before each script.
-- What they mean is said in src/core/ngx_llm_bucket.h.
--
-- A double is exact up to 2^53, too little for nanoseconds since 1970.  So a
-- bucket is whole tokens that are used, at a time in microseconds, and a
-- credit: tokens / (period in microseconds) that are refilled besides and
-- make no whole one yet.  All products are divided exactly: nothing drifts,
-- be it one token a day or 10^12 a second.
--
-- The key holds "time  used credit rate period_s  used credit rate period_s".

local fmod, format, max, min = math.fmod, string.format, math.max, math.min

-- no budget uses more: two of them are still exact
local MOST = 4e15

-- Redis' clock may be set an hour forward: a key outlives that
local KEEP_MS = 3900e3


-- a * b / m and the remainder; whole numbers, a < m < 2^51

local function muldiv(a, b, m)
  local p = a * b

  if p <= 2^53 then
    local r = fmod(p, m)
    return (p - r) / m, r
  end

  -- digit by digit of b, in a base in which no step exceeds 2^53

  local base, digits, n = math.floor(2^52 / m), {}, 0

  while b > 0 do
    n = n + 1
    digits[n] = fmod(b, base)
    b = (b - digits[n]) / base
  end

  local q, r = 0, 0

  for i = n, 1, -1 do
    local x = r * base + a * digits[i]
    r = fmod(x, m)
    q = q * base + (x - r) / m
  end

  return q, r
end


-- the same for any a; more than 2^53 is as good as infinite

local function scale(a, b, m)
  local r = fmod(a, m)
  local q, rest = muldiv(r, b, m)

  return (a - r) / m * b + q, rest
end


local function period_us(bucket)
  return bucket.period * 1e6
end


-- microseconds until so many tokens are refilled

local function refilled_in(bucket, tokens)
  if tokens <= 0 then
    return 0
  end

  local q, rest = scale(tokens, period_us(bucket), bucket.rate)
  local x = rest - bucket.credit

  if x > 0 then
    return min(q + 1, MOST)
  end

  return min(q + (x + fmod(-x, bucket.rate)) / bucket.rate, MOST)
end


local function give_back(bucket, tokens)
  bucket.used = bucket.used - tokens

  if bucket.used <= 0 then
    bucket.used, bucket.credit = 0, 0
  end
end


local function take(bucket, tokens)
  if bucket.rate == 0 then
    return
  end

  if tokens < 0 then
    give_back(bucket, -tokens)
  else
    bucket.used = min(bucket.used + tokens, MOST)
  end
end


local function refill(bucket, us)
  if bucket.used == 0 then
    return
  end

  local tokens, rest = scale(us, bucket.rate, period_us(bucket))

  bucket.credit = bucket.credit + rest

  if bucket.credit >= period_us(bucket) then
    bucket.credit = bucket.credit - period_us(bucket)
    tokens = tokens + 1
  end

  give_back(bucket, tokens)
end


-- 0: now; -1: never

local function delay(bucket, cost)
  if bucket.rate == 0 then
    return 0
  end

  if cost > bucket.burst then
    return -1
  end

  return refilled_in(bucket, bucket.used + cost - bucket.burst)
end


local function level(bucket)
  return bucket.rate == 0 and 0 or bucket.burst - bucket.used
end


-- microseconds until it is full

local function full_in(bucket)
  return bucket.rate == 0 and 0 or refilled_in(bucket, bucket.used)
end


-- A state is never older than the last visit of the node that asks now,
-- since_us ago by its own clock: a clock that was set forward refills no
-- more than that, one that was set back nothing.

local function load(key, since_us)
  local text = redis.call('GET', key)
  local time = redis.call('TIME')
  local now = time[1] * 1e6 + time[2]

  local empty = '0 0 0 0 1 0 0 0 1'
  local n = { string.match(text or empty,
                           '^' .. string.rep('(%d+) ', 8) .. '(%d+)$') }

  if #n ~= 9 then
    error('LLMSTATE the key holds something else', 0)
  end

  for i = 1, 9 do
    n[i] = tonumber(n[i])
  end

  local state = {
    now = now,
    asked = {},
    { used = n[2], credit = n[3], rate = n[4], period = n[5] },
    { used = n[6], credit = n[7], rate = n[8], period = n[9] },
  }

  local since = tonumber(since_us) or -1
  local us = max(now - n[1], 0)

  if since >= 0 then
    us = min(us, since)
  end

  for i = 1, 2 do
    if state[i].rate > 0 then
      refill(state[i], us)
    end
  end

  return state
end


-- What the node says of a bucket: rate, period, burst and cost, from ARGV[i]
-- on.  One whose rate is another now keeps the tokens that are used.

local function bucket_of(state, b, i)
  local bucket = state[b]
  local rate = tonumber(ARGV[i])

  if rate == 0 then
    state.asked[b] = { used = 0, credit = 0, rate = 0, period = 1, burst = 0 }
    return state.asked[b], 0
  end

  local period = tonumber(ARGV[i + 1])

  if period ~= bucket.period then
    bucket.credit = scale(bucket.credit, period, bucket.period)
  end

  bucket.rate, bucket.period = rate, period
  bucket.burst = tonumber(ARGV[i + 2])
  state.asked[b] = bucket

  return bucket, tonumber(ARGV[i + 3])
end


local function save(key, state)
  local t, r = state[1], state[2]
  local ms = math.ceil(max(full_in(t), full_in(r)) / 1000) + KEEP_MS

  redis.call('SET', key,
             format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f', state.now,
                    t.used, t.credit, t.rate, t.period,
                    r.used, r.credit, r.rate, r.period),
             'PX', format('%.0f', ms))
end


-- What a charge took, and from when on: "tokens requests start start"; "-"
-- is a charge that has ended.  nil: there is none.

local function load_record(key)
  local text = redis.call('GET', key)

  if not text or text == '-' then
    return nil, text == '-'
  end

  local n = { string.match(text, '^' .. string.rep('(%d+) ', 3) .. '(%d+)$') }

  if #n ~= 4 then
    error('LLMSTATE the charge holds something else', 0)
  end

  return { tokens = tonumber(n[1]), requests = tonumber(n[2]),
           starts = { tonumber(n[3]), tonumber(n[4]) } }
end


local function save_record(key, keep_ms, record)
  redis.call('SET', key,
             format('%.0f %.0f %.0f %.0f', record.tokens, record.requests,
                    record.starts[1], record.starts[2]),
             'PX', keep_ms)
end


-- The state is written by every visit, also by one that took nothing: the
-- next one's since_us is the time to it.

local function answer(state, status, first, second)
  local tokens, requests = state.asked[1], state.asked[2]

  save(KEYS[1], state)

  return { status, first, second, level(tokens), level(requests),
           full_in(tokens), full_in(requests) }
end
