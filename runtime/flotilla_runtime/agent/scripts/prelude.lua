-- Put in front of every script of this folder. ARGV[1] is the prefix of the fleet's keys, which all share one hash
-- tag. KEYS[1] is the interactive queue, from which a Redis Cluster finds the shard. All times are by Redis' clock,
-- because it is the only clock that all workers share.
local prefix = ARGV[1]
local TICKS_PER_DOUBLING = 4
local SMALLEST_TICK_MS = 50
local WINDOW_KEPT_SECONDS = 7200

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

local leases_key = prefix .. 'leases'

local function queue_key(priority) return prefix .. 'queue:' .. priority end
local function task_key(id) return prefix .. 'task:' .. id end
local function journal_key(id) return prefix .. 'journal:' .. id end

local function waiting()
  return redis.call('XLEN', queue_key('Interactive')) + redis.call('XLEN', queue_key('Batch'))
end

local function append(id, entry)
  return redis.call('RPUSH', journal_key(id), cjson.encode(entry))
end

-- The fence: only the worker with the newest token of a running task may write to it.
local function owns(id, token)
  local held = redis.call('HMGET', task_key(id), 'token', 'status')
  return held[1] == token and held[2] == 'Running'
end

local function cancel_requested(id)
  return redis.call('HEXISTS', task_key(id), 'cancelRequested')
end

local function extend_lease(id, lease_ms)
  redis.call('ZADD', leases_key, text(now_ms() + lease_ms), id)
end

-- Durations are counted in ticks, four for each doubling of the duration, so the percentiles of an hour cost the same
-- at any rate of tasks.
local function tick(milliseconds)
  if milliseconds <= SMALLEST_TICK_MS then return 0 end
  return math.ceil(TICKS_PER_DOUBLING * math.log(milliseconds / SMALLEST_TICK_MS) / math.log(2))
end

local function count_ended(now, reason, figures)
  local window = prefix .. 'window:' .. text(math.floor(now / 60000))
  local function add(field, amount)
    if amount > 0 then redis.call('HINCRBY', window, field, text(amount)) end
  end
  add('reason:' .. reason, 1)
  add('waited:' .. tick(figures.waited), 1)
  add('took:' .. tick(figures.took), 1)
  add('recovered', figures.recovered)
  add('steps', figures.steps or 0)
  add('tokens', figures.tokens or 0)
  add('busy:Queue', figures.waited)
  for part, milliseconds in pairs(figures.busy or {}) do
    add('busy:' .. part, milliseconds)
  end
  redis.call('EXPIRE', window, WINDOW_KEPT_SECONDS)
end

-- Every task that ends comes through here: it updates the hash, the journal, the lease and the figures of the hour.
local function end_task(id, status, reason, message, figures)
  local now = now_ms()
  local held = redis.call('HMGET', task_key(id), 'submittedAt', 'startedAt', 'attempts')
  local submitted = tonumber(held[1])
  figures.waited = (tonumber(held[2] or now) or now) - submitted
  figures.took = now - submitted
  figures.recovered = (tonumber(held[3]) or 0) > 1 and 1 or 0
  redis.call('HSET', task_key(id), 'status', status, 'reason', reason, 'message', message, 'endedAt', text(now))
  append(id, {type = 'Ended', at = now, status = status, reason = reason, message = message})
  redis.call('ZREM', leases_key, id)
  redis.call('ZADD', prefix .. 'ended', text(now), id)
  count_ended(now, reason, figures)
end
