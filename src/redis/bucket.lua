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
-- The key is a hash: T, R and for each open charge its id.  They are doubles,
-- as reading and writing numbers as text takes longer than what is done with
-- them; of no more than 64 bytes, as Redis keeps longer ones at several times
-- their size:
--
--   T       time, end of the last charge, expiry, charges that may be added
--           before it is looked through for such as nobody has ended;
--           of the tokens: used credit rate period
--   R       of the requests: used credit rate period
--   charge  tokens requests start start until; one that has ended: until
--
-- Times are microseconds, but the periods: seconds.  Another layout takes
-- other names than T and R: nodes of different versions have budgets of their
-- own then, and do not read each other's.
--
-- ARGV is the charge's id and, as doubles too: how long a charge is kept at
-- most, in ms; when the node was here last, in us by its own clock, or -1;
-- rate, period, burst and cost of the tokens, the same of the requests; and
-- two numbers that each script has a use of its own for.
--
-- A function that is made here costs each run of a script, wanted or not, as
-- much as calling it does some ten times: there are few.

local fmod, max, min = math.fmod, math.max, math.min
local pack, read = struct.pack, struct.unpack

-- no budget uses more: two of them are still exact
local MOST = 4e15

-- Redis' clock may be set an hour forward: a key outlives that
local KEEP_MS = 3900e3


-- a * b / m and the remainder; whole numbers, m < 2^51.  More than 2^53 is as
-- good as infinite.

local function scale(a, b, m)
  local p = a * b

  if p <= 2^53 then
    local r = fmod(p, m)
    return (p - r) / m, r
  end

  -- digit by digit of b, in a base in which no step exceeds 2^53

  local rest, base, digits, n = fmod(a, m), math.floor(2^52 / m), {}, 0
  local whole = (a - rest) / m * b

  while b > 0 do
    n = n + 1
    digits[n] = fmod(b, base)
    b = (b - digits[n]) / base
  end

  local q, r = 0, 0

  for i = n, 1, -1 do
    local x = r * base + rest * digits[i]
    r = fmod(x, m)
    q = q * base + (x - r) / m
  end

  return whole + q, r
end


local function take(bucket, tokens)
  if bucket.rate == 0 then
    return
  end

  local used = bucket.used + tokens

  if used <= 0 then
    bucket.used, bucket.credit = 0, 0
  else
    bucket.used = min(used, MOST)
  end
end


local function level(bucket)
  return bucket.rate == 0 and 0 or bucket.burst - bucket.used
end


-- microseconds until so many tokens are refilled

local function refilled_in(bucket, tokens)
  if tokens <= 0 or bucket.rate == 0 then
    return 0
  end

  local q, rest = scale(tokens, bucket.period * 1e6, bucket.rate)
  local x = rest - bucket.credit

  if x > 0 then
    return min(q + 1, MOST)
  end

  return min(q + (x + fmod(-x, bucket.rate)) / bucket.rate, MOST)
end


-- A bucket as it is after us more.  What somebody else has put there is none.

local function bucket_in(what, us, used, credit, rate, period)
  if not (used >= 0 and used <= MOST and rate >= 0 and rate <= MOST
          and period >= 1 and credit >= 0 and credit < period * 1e6)
  then
    error('LLMSTATE the key holds something else in ' .. what, 0)
  end

  if used > 0 then
    local tokens, rest = scale(us, rate, period * 1e6)

    credit = credit + rest

    if credit >= period * 1e6 then
      credit, tokens = credit - period * 1e6, tokens + 1
    end

    used = used - tokens

    if used <= 0 then
      used, credit = 0, 0
    end
  end

  return { used = used, credit = credit, rate = rate, period = period,
           burst = 0, full = 0 }
end


-- A bucket as the node wants it, and its cost: both empty if it wants none.
-- One whose rate is another now keeps the tokens that are used.

local function bucket_of(bucket, rate, period, burst, cost)
  if rate == 0 then
    return bucket.rate == 0 and bucket or bucket_in('', 0, 0, 0, 0, 1), 0
  end

  if period ~= bucket.period then
    bucket.credit = scale(bucket.credit, period, bucket.period)
  end

  bucket.rate, bucket.period, bucket.burst = rate, period, burst

  return bucket, cost
end


-- What the key holds, with tokens, cost, requests, cost and the script's own
-- numbers.  Of the charge: record is what it took and from when on, if it is
-- open; or it has ended, and may not be taken any more.
--
-- A state is never older than the node's last visit: a clock that was set
-- forward refills no more than that, one that was set back nothing.

local function load()
  local keep_ms, since, rate, period, burst, cost, rate_r, period_r, burst_r,
        cost_r, first, second = read('<dddddddddddd', ARGV[2])

  local fields = redis.call('HMGET', KEYS[1], 'T', 'R', ARGV[1])
  local time = redis.call('TIME')
  local now = time[1] * 1e6 + time[2]
  local tokens, requests, charge = fields[1], fields[2], fields[3]

  local state = { now = now, last = 0, expires = 0, room = 64,
                  keep_ms = keep_ms, known = charge, ended = false,
                  record = nil, tokens = nil, requests = nil }

  if not charge then
    -- the usual case

  elseif #charge == 8 then
    state.ended = read('<d', charge) > now

  elseif #charge == 40 then
    local took, count, start, start_r, ends = read('<ddddd', charge)

    if ends > now then
      state.record = { tokens = took, requests = count, start = start,
                       start_r = start_r }
    end

  else
    error('LLMSTATE the key holds something else in a charge', 0)
  end

  if tokens and requests and #tokens == 64 and #requests == 32 then
    local at, last, expires, room, used, credit, old, old_period =
      read('<dddddddd', tokens)

    local us = max(now - at, 0)

    if since >= 0 then
      us = min(us, since)
    end

    state.last, state.expires, state.room = last, expires, room
    state.tokens = bucket_in('T', us, used, credit, old, old_period)
    state.requests = bucket_in('R', us, read('<dddd', requests))

  elseif not tokens and not requests then
    state.tokens = bucket_in('T', 0, 0, 0, 0, 1)
    state.requests = bucket_in('R', 0, 0, 0, 0, 1)

  else
    error('LLMSTATE the key holds something else in T or R', 0)
  end

  tokens, cost = bucket_of(state.tokens, rate, period, burst, cost)
  requests, cost_r = bucket_of(state.requests, rate_r, period_r, burst_r,
                               cost_r)

  return state, tokens, cost, requests, cost_r, first, second
end


-- The state, and what becomes of the charge: nil, or its text, for as long as
-- it is kept and extra_ms.

local function save(state, text, extra_ms)
  local key, now = KEYS[1], state.now
  local t, r = state.tokens, state.requests

  t.full, r.full = refilled_in(t, t.used), refilled_in(r, r.used)

  if text then
    local ends = now + (state.keep_ms + extra_ms) * 1000

    state.last = max(state.last, ends)
    text = text .. pack('<d', ends)

    if not state.known then
      state.room = state.room - 1
    end
  end

  -- charges that nobody ended are dropped when the number of charges has
  -- doubled since they were looked for

  if state.room < 0 then
    local fields, left = redis.call('HGETALL', key), 0

    for i = 1, #fields, 2 do
      local id, charge = fields[i], fields[i + 1]

      if #id > 1 then
        left = left + 1

        if (#charge == 8 or #charge == 40)
           and read('<d', charge, #charge - 7) <= now
        then
          redis.call('HDEL', key, id)
          left = left - 1
        end
      end
    end

    state.room = max(left, 64)
  end

  -- it need not be told more often than each five minutes when it expires

  local expires = max(now + max(t.full, r.full) + KEEP_MS * 1000, state.last)
  local expire = expires - 300e6 > state.expires

  if expire then
    state.expires = expires
  end

  local tokens = pack('<dddddddd', now, state.last, state.expires, state.room,
                      t.used, t.credit, t.rate, t.period)
  local requests = pack('<dddd', r.used, r.credit, r.rate, r.period)

  if text then
    redis.call('HSET', key, 'T', tokens, 'R', requests, ARGV[1], text)
  else
    redis.call('HSET', key, 'T', tokens, 'R', requests)
  end

  if expire then
    redis.call('PEXPIRE', key, math.ceil((expires - now) / 1000))
  end
end


local function answer(status, first, second, tokens, requests)
  return { status, first, second, level(tokens), level(requests),
           tokens.full, requests.full }
end
