-- Takes requests and tokens from a bucket of the whole fleet, which holds a minute's worth of both. Each take counts at
-- once, so the bucket may owe: what is owed comes back before the next call has its turn, in the order of the takes. One
-- that wants more than a minute's worth has its turn when the bucket is full. One that would wait longer than ARGV[7]
-- milliseconds takes nothing; with -1 it takes in any case, and less than nothing is given back. A rate of 0 is no limit.
--
-- Who comes too early stands in line under the name ARGV[8], and asks again under it. Whoever asks lets those at the
-- front take what they want, so the order is that in which they came. Without a name nobody stands in line, and nobody
-- passes it. Who has not asked for a while is lost, and leaves the line when they would have been the next.
--
-- A bucket that is lost is a full one, so it is not written to the append-only file, and neither is its line.
redis.set_repl(redis.REPL_NONE)
local MINUTE_MS = 60000
local LOST_MS = 20000
local key, most_wait, name = ARGV[2], tonumber(ARGV[7]), ARGV[8]
local line_key = key .. ':line'
local rates = {requests = tonumber(ARGV[3]), tokens = tonumber(ARGV[4])}
local wanted = {requests = tonumber(ARGV[5]), tokens = tonumber(ARGV[6])}
local held = redis.call('HMGET', key, 'at', 'requests', 'tokens')
local before = {requests = tonumber(held[2]), tokens = tonumber(held[3])}
local at = tonumber(held[1] or now)

local levels = {}
for what, rate in pairs(rates) do
  if rate > 0 then
    levels[what] = math.min(rate, (before[what] or rate) + math.max(0, now - at) * rate / MINUTE_MS)
  end
end

-- The place of a call in line: what it wants, or the time of its turn when it has taken that.
local function place_key(whose) return key .. ':place:' .. whose end

local function wait_for(wants)
  local wait = 0
  for what, level in pairs(levels) do
    local lacking = math.min(wants[what], rates[what]) - level
    if wants[what] > 0 then wait = math.max(wait, math.ceil(lacking * MINUTE_MS / rates[what])) end
  end
  return wait
end

local function take(wants)
  local full = 0
  for what, level in pairs(levels) do
    level = math.min(rates[what], level - wants[what])
    levels[what] = level
    full = math.max(full, math.ceil((rates[what] - level) * MINUTE_MS / rates[what]))
    redis.call('HSET', key, what, string.format('%.6f', level))
  end
  redis.call('HSET', key, 'at', text(math.max(now, at)))
  redis.call('PEXPIRE', key, full + MINUTE_MS)
end

local function serve_line()
  local first = redis.call('LINDEX', line_key, 0)
  while first do
    local requests, tokens = string.match(redis.call('GET', place_key(first)) or '', '^(%d+) (%d+)$')
    if requests then
      local wants = {requests = tonumber(requests), tokens = tonumber(tokens)}
      local wait = wait_for(wants)
      if wait > most_wait then return end
      take(wants)
      redis.call('SET', place_key(first), text(now + wait), 'PX', text(wait + LOST_MS))
    end
    redis.call('LPOP', line_key)
    first = redis.call('LINDEX', line_key, 0)
  end
end

if most_wait < 0 then
  take(wanted)
  return {1, 0, now}
end

local is_in_line = name ~= '' and redis.call('PEXPIRE', place_key(name), LOST_MS) == 1
serve_line()
local turn = is_in_line and tonumber(redis.call('GET', place_key(name)))
if turn then return {1, math.max(0, turn - now), now} end
if redis.call('EXISTS', line_key) == 0 then
  is_in_line = false
  local wait = wait_for(wanted)
  if wait <= most_wait then
    take(wanted)
    return {1, wait, now}
  end
end
if name ~= '' then
  if not is_in_line then redis.call('RPUSH', line_key, name) end
  redis.call('SET', place_key(name), text(wanted.requests) .. ' ' .. text(wanted.tokens), 'PX', LOST_MS)
  redis.call('PEXPIRE', line_key, LOST_MS)
end
return {0, 0, now}
