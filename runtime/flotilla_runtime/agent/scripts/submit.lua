-- Creates a task completely or not at all. A second call with the same id or idempotency key returns the same task.
local id, priority, tenant, caller, idempotency = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local max_waiting, fields = tonumber(ARGV[7]), cjson.decode(ARGV[8])
local MOST_CALLS = 64

local key = prefix .. 'idempotency:' .. caller .. ':' .. idempotency
if idempotency ~= '' then
  local known = redis.call('GET', key)
  if known then return {'Exists', known} end
end
if redis.call('EXISTS', task_key(id)) == 1 then return {'Exists', id} end
if waiting() >= max_waiting then return {'Full', ''} end

local now = now_ms()
if redis.call('EXISTS', lines_known_key) == 1 then
  join_queue(id, priority, tenant, caller)
else
  redis.call('HSET', task_key(id), 'entry', redis.call('XADD', stream_key(priority), '*', 'task', id))
end
redis.call('HSET', task_key(id), 'id', id, 'status', 'Waiting', 'priority', priority, 'tenant', tenant,
  'caller', caller, 'submittedAt', text(now), 'token', '0', 'attempts', '0')
for field, value in pairs(fields) do
  redis.call('HSET', task_key(id), field, value)
end
if idempotency ~= '' then
  redis.call('SET', key, id)
  redis.call('HSET', task_key(id), 'idempotencyEntry', key)
end
append(id, {type = 'Submitted', at = now})
redis.call('ZADD', prefix .. 'tasks', '0', id)
redis.call('ZADD', prefix .. 'tasks-of:' .. caller, '0', id)
-- One idle worker wakes for each task. A call that nobody needed wakes a worker for nothing, so few are kept.
if redis.call('LLEN', prefix .. 'calls') < MOST_CALLS then redis.call('RPUSH', prefix .. 'calls', '1') end
return {'Created', id}
