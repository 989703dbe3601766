-- Put in front of every script of this folder. ARGV[1] is the prefix of the fleet's keys, which all share one hash
-- tag. KEYS[1] is one of them, from which a Redis Cluster finds the shard. All times are by Redis' clock, because it is
-- the only clock that all workers share.
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

local function task_key(id) return prefix .. 'task:' .. id end
local function journal_key(id) return prefix .. 'journal:' .. id end

-- The queue. Each caller has a queue of its own for each priority. Tenants take turns, and in a tenant's turn its
-- callers do. So nobody waits behind all the tasks of somebody else. Whoever had a turn goes to the end of its line.
-- Each line is a sorted set, by numbers that only grow, and holds only those for whom something waits.
local function waiting_key(priority) return prefix .. 'waiting:' .. priority end
local function tenants_key(priority) return prefix .. 'line:' .. priority end
local function callers_key(priority, tenant) return prefix .. 'line:' .. priority .. ':' .. tenant end
local function own_key(priority, tenant, caller)
  return prefix .. 'waiting:' .. priority .. ':' .. tenant .. ':' .. caller
end

-- Workers of version 0.1.0 know only one stream for each priority. Until a newer worker has said that it knows the lines,
-- tasks wait there, because an upgrade may replace the gateways long before the workers.
local lines_known_key = prefix .. 'lines-known'
local function stream_key(priority) return prefix .. 'queue:' .. priority end

local function next_number() return text(redis.call('INCR', prefix .. 'turns')) end

local function waiting()
  local count = 0
  for _, priority in ipairs({'Interactive', 'Batch'}) do
    count = count + redis.call('ZCARD', waiting_key(priority)) + redis.call('XLEN', stream_key(priority))
  end
  return count
end

local function join_queue(id, priority, tenant, caller)
  redis.call('ZADD', own_key(priority, tenant, caller), next_number(), id)
  redis.call('ZADD', callers_key(priority, tenant), 'NX', next_number(), caller)
  redis.call('ZADD', tenants_key(priority), 'NX', next_number(), tenant)
  redis.call('ZADD', waiting_key(priority), text(now_ms()), id)
end

local function leave_queue(id, priority, tenant, caller)
  redis.call('ZREM', waiting_key(priority), id)
  redis.call('ZREM', own_key(priority, tenant, caller), id)
  if redis.call('EXISTS', own_key(priority, tenant, caller)) == 1 then return end
  redis.call('ZREM', callers_key(priority, tenant), caller)
  if redis.call('EXISTS', callers_key(priority, tenant)) == 1 then return end
  redis.call('ZREM', tenants_key(priority), tenant)
end

-- Takes the next task of a priority off the queue. It begins with a removal, which a full Redis allows.
local function take(priority)
  local tenant = redis.call('ZRANGE', tenants_key(priority), 0, 0)[1]
  if not tenant then return nil end
  local caller = redis.call('ZRANGE', callers_key(priority, tenant), 0, 0)[1]
  local id = redis.call('ZRANGE', own_key(priority, tenant, caller), 0, 0)[1]
  leave_queue(id, priority, tenant, caller)
  redis.call('ZADD', callers_key(priority, tenant), 'XX', next_number(), caller)
  redis.call('ZADD', tenants_key(priority), 'XX', next_number(), tenant)
  return id
end

-- Whoever follows the task looks at its journal. The channel is sharded, so in a Cluster one node sends it alone.
local function tell_growth(id)
  redis.call('SPUBLISH', prefix .. 'events:' .. id, '')
end

local function append(id, entry)
  redis.call('RPUSH', journal_key(id), cjson.encode(entry))
  tell_growth(id)
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
