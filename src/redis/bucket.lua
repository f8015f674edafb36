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
-- The key is a hash: t "time last used credit rate period_s" of the tokens, r
-- "used credit rate period_s" of the requests, n the number of fields at
-- which it is looked through for charges that nobody has ended, and for each
-- open charge its id and "tokens requests start start until".

local fmod, format, max, min = math.fmod, string.format, math.max, math.min

-- no budget uses more: two of them are still exact
local MOST = 4e15

-- Redis' clock may be set an hour forward: a key outlives that
local KEEP_MS = 3900e3

-- fields of a key before charges that nobody ended are looked for
local LOOK = 64


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


-- numbers of a field, or zeroes

local function numbers_of(text, count, what)
  if not text then
    text = '0' .. string.rep(' 0', count - 1)
  end

  local n = { string.match(text, '^' .. string.rep('(%d+) ', count - 1)
                                 .. '(%d+)$') }

  if #n ~= count then
    error('LLMSTATE the key holds something else in ' .. what, 0)
  end

  for i = 1, count do
    n[i] = tonumber(n[i])
  end

  return n
end


-- What a charge took, and from when on.  nil: there is none; true: it has
-- ended, and may not be taken any more.

local function record_of(text, now)
  if not text then
    return nil, false
  end

  local ended = string.match(text, '^-(%d+)$')

  if ended then
    return nil, tonumber(ended) > now
  end

  local n = numbers_of(text, 5, 'a charge')

  if n[5] <= now then
    return nil, false
  end

  return { tokens = n[1], requests = n[2], starts = { n[3], n[4] } }, false
end


-- A state is never older than the last visit of the node that asks now,
-- since_us ago by its own clock: a clock that was set forward refills no
-- more than that, one that was set back nothing.

local function load(since_us)
  local fields = redis.call('HMGET', KEYS[1], 't', 'r', 'n', ARGV[1])
  local time = redis.call('TIME')
  local now = time[1] * 1e6 + time[2]

  local t = numbers_of(fields[1], 6, 't')
  local r = numbers_of(fields[2], 4, 'r')

  local state = {
    now = now,
    last = t[2],
    look = tonumber(fields[3]) or LOOK,
    asked = {},
    { used = t[3], credit = t[4], rate = t[5], period = max(t[6], 1) },
    { used = r[1], credit = r[2], rate = r[3], period = max(r[4], 1) },
  }

  local since = tonumber(since_us) or -1
  local us = max(now - t[1], 0)

  if since >= 0 then
    us = min(us, since)
  end

  for i = 1, 2 do
    if state[i].rate > 0 then
      refill(state[i], us)
    end
  end

  state.record, state.ended = record_of(fields[4], now)

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


-- Charges that nobody ended are dropped when the number of fields has doubled
-- since they were looked for.

local function sweep(state)
  if redis.call('HLEN', KEYS[1]) < state.look then
    return
  end

  local fields, left = redis.call('HGETALL', KEYS[1]), 0

  for i = 1, #fields, 2 do
    local ends = #fields[i] > 1 and string.match(fields[i + 1], '(%d+)$')

    if ends and tonumber(ends) <= state.now then
      redis.call('HDEL', KEYS[1], fields[i])
    else
      left = left + 1
    end
  end

  redis.call('HSET', KEYS[1], 'n', max(2 * left, LOOK))
end


-- The state, and what becomes of the charge: text lives for keep_ms, or nil.

local function save(state, text, keep_ms)
  local t, r = state[1], state[2]
  local fields = { 't', 0, 'r', format('%.0f %.0f %.0f %.0f', r.used,
                                       r.credit, r.rate, r.period) }

  if text then
    local ends = state.now + keep_ms * 1000

    state.last = max(state.last, ends)
    fields[5], fields[6] = ARGV[1], text .. format('%.0f', ends)
  end

  fields[2] = format('%.0f %.0f %.0f %.0f %.0f %.0f', state.now, state.last,
                     t.used, t.credit, t.rate, t.period)

  redis.call('HSET', KEYS[1], unpack(fields))

  local full_ms = math.ceil(max(full_in(t), full_in(r)) / 1000) + KEEP_MS
  local last_ms = math.ceil((state.last - state.now) / 1000)

  redis.call('PEXPIRE', KEYS[1], format('%.0f', max(full_ms, last_ms)))

  if text then
    sweep(state)
  end
end


-- an open charge; it outlives a clock that is set forward, too

local function save_charge(state, record, keep_ms)
  save(state, format('%.0f %.0f %.0f %.0f ', record.tokens, record.requests,
                     record.starts[1], record.starts[2]), keep_ms)
end


local function answer(state, status, first, second)
  local tokens, requests = state.asked[1], state.asked[2]

  return { status, first, second, level(tokens), level(requests),
           full_in(tokens), full_in(requests) }
end


-- Nothing is taken: the state is written all the same, as the next visit's
-- since_us is the time to this one.

local function no_charge(state, status, first, second)
  save(state)

  return answer(state, status, first, second)
end
