-- Copyright (C) the ngx_http_llm_stream_module authors
-- SPDX-License-Identifier: BSD-2-Clause

-- The two buckets of a key, tokens and requests; put before each script, and
-- save.lua behind it.  What they mean is said in src/core/ngx_llm_bucket.h.
--
-- A double is exact up to 2^53, too little for nanoseconds since 1970.  So a
-- bucket is whole tokens that are used, at a time in microseconds, and a
-- credit: tokens / (period in microseconds) that are refilled besides and
-- make no whole one yet.  All products are divided exactly: nothing drifts,
-- be it one token a day or 10^12 a second.
--
-- The key is a hash: t, r and for each open charge its id.  They are doubles,
-- as reading and writing numbers as text takes longer than what is done with
-- them; of no more than 64 bytes, as Redis keeps longer ones at several times
-- their size:
--
--   t       time, expiry, charges that may be added before it is looked
--           through for such as nobody has ended; of the tokens: used credit
--           rate period
--   r       of the requests: used credit rate period; none, if there never
--           was a budget of requests
--   charge  tokens requests start start until; one that has ended: until
--
-- Times are microseconds, but the periods: seconds.  Another layout takes
-- other names than t and r: nodes of different versions have budgets of their
-- own then, and do not read each other's.
--
-- ARGV is the charge's id and, as doubles too: how long a charge is kept at
-- most, in ms; when the node was here last, in us by its own clock, or -1;
-- rate, period, burst and cost of the tokens, the same of the requests; and
-- two numbers that each script has a use of its own for.  What it gives are
-- doubles, too, in one text.
--
-- A run makes anew what a script is made of: a table, a function, and each
-- variable that a function uses, cost as much as calling one some ten times.
-- So all is local to one block, from here to the end of save.lua; functions
-- are few, use none of it, and a bucket is numbers, not a table: those of the
-- requests end in _r.

local call, pack, read = redis.call, struct.pack, struct.unpack

-- no budget uses more: two of them are still exact
local MOST = 4e15

-- Redis' clock may be set an hour forward: a key outlives that
local KEEP_US = 3900e6


-- a * b / m and the remainder; whole numbers, m < 2^51.  More than 2^53 is as
-- good as infinite.  The remainder of whole numbers below 2^53 is exact.

local function scale(a, b, m)
  local p = a * b

  if p < 2^53 then
    local r = p % m
    return (p - r) / m, r
  end

  -- digit by digit of b, in a base in which no step exceeds 2^53

  local rest, base, digits, n = a % m, math.floor(2^52 / m), {}, 0
  local whole = (a - rest) / m * b

  while b > 0 do
    n = n + 1
    digits[n] = b % base
    b = (b - digits[n]) / base
  end

  local q, r = 0, 0

  for i = n, 1, -1 do
    local x = r * base + rest * digits[i]
    r = x % m
    q = q * base + (x - r) / m
  end

  return whole + q, r
end


-- used and credit after so many tokens more, or less

local function take(used, credit, tokens)
  used = used + tokens

  if used <= 0 then
    return 0, 0
  end

  return used < MOST and used or MOST, credit
end


-- microseconds until so many tokens are refilled

local function refilled_in(tokens, credit, rate, period)
  if tokens <= 0 or rate == 0 then
    return 0
  end

  local us, rest = scale(tokens, period * 1e6, rate)
  local x = rest - credit

  us = us + (x > 0 and 1 or (x + -x % rate) / rate)

  return us < MOST and us or MOST
end


-- Used and credit after us more.  What somebody else has put there is none.

local function refill(us, used, credit, rate, period)
  local unit = period * 1e6

  if not (used >= 0 and used <= MOST and rate >= 0 and rate <= MOST
          and period >= 1 and credit >= 0 and credit < unit)
  then
    error('LLMSTATE the key holds something else in t or r', 0)
  end

  if used == 0 then
    return 0, credit
  end

  local tokens, rest = scale(us, rate, unit)

  credit = credit + rest

  if credit >= unit then
    credit, tokens = credit - unit, tokens + 1
  end

  return take(used, credit, -tokens)
end


local keep_ms, since, rate, period, burst, cost, rate_r, period_r, burst_r,
      cost_r, first, second = read('<dddddddddddd', ARGV[2])

local key, id = KEYS[1], ARGV[1]
local fields, time = call('HMGET', key, 't', 'r', id), call('TIME')
local tokens, requests, charge = fields[1], fields[2], fields[3]
local now = time[1] * 1e6 + time[2]


-- Of the charge: took, took_r and from when on, if it is open; or it has
-- ended, and may not be taken any more.

local ended, took, took_r, start, start_r = false

if not charge then
  -- the usual case

elseif #charge == 40 then
  local ends

  took, took_r, start, start_r, ends = read('<ddddd', charge)

  if ends <= now then
    took = nil
  end

elseif #charge == 8 then
  ended = read('<d', charge) > now

else
  error('LLMSTATE the key holds something else in a charge', 0)
end


-- What is used now.  A state is never older than the node's last visit: a
-- clock that was set forward refills no more than that, one that was set back
-- nothing.

local expires, room = 0, 64
local used, credit, at, per = 0, 0, 0, 1
local used_r, credit_r, at_r, per_r = 0, 0, 0, 1

if tokens then
  if #tokens ~= 56 or requests and #requests ~= 32 then
    error('LLMSTATE the key holds something else in t or r', 0)
  end

  local last

  last, expires, room, used, credit, at, per = read('<ddddddd', tokens)

  local us = now > last and now - last or 0

  if since >= 0 and since < us then
    us = since
  end

  used, credit = refill(us, used, credit, at, per)

  if requests then
    used_r, credit_r, at_r, per_r = read('<dddd', requests)
    used_r, credit_r = refill(us, used_r, credit_r, at_r, per_r)
  end

elseif requests then
  error('LLMSTATE the key holds something else in r', 0)
end


-- From here on as the node wants it: where its rate is another one now, the
-- tokens that are used stay used.  Without a rate a bucket does not apply: it
-- is kept as it is.

if rate > 0 then
  if period ~= per then
    credit = scale(credit, period, per)
  end

  at, per = rate, period
else
  burst, cost = 0, 0
end

if rate_r > 0 then
  if period_r ~= per_r then
    credit_r = scale(credit_r, period_r, per_r)
  end

  at_r, per_r = rate_r, period_r
else
  burst_r, cost_r = 0, 0
end


-- What the script leaves for save.lua: its answer, or a status, two numbers
-- and a reason; what becomes of the charge, nil: nothing, and until when.

local answer, status, text
local reason = ''
local ends = now + keep_ms * 1000
