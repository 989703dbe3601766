-- Creates a task completely or not at all. A second call with the same id or idempotency key returns the same task.
local id, priority, tenant, caller, idempotency = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local quota, fields = cjson.decode(ARGV[7]), cjson.decode(ARGV[8])

local key = prefix .. 'idempotency:' .. caller .. ':' .. idempotency
if idempotency ~= '' then
  local known = redis.call('GET', key)
  if known then return {'Exists', known} end
end
if redis.call('EXISTS', task_key(id)) == 1 then return {'Exists', id} end

local bytes = TASK_BYTES
for _, value in pairs(fields) do bytes = bytes + #value end
local function stored_by(whom) return tonumber(redis.call('HGET', stored_key, whom) or '0') + bytes end
local places = tonumber(redis.call('HGET', places_key, caller) or '0')
if waiting() + redis.call('ZCARD', held_back_key) >= quota.places then return {'Full', ''} end
if places >= quota.places_each then return {'CallerFull', ''} end
if quota.memory_full or (quota.bytes and stored_by(EVERYBODY) > quota.bytes) then return {'StoreFull', ''} end
if quota.bytes and stored_by(caller) > quota.bytes_each then return {'CallerStoreFull', ''} end

local task = task_key(id)
redis.call('HSET', task, 'id', id, 'priority', priority, 'tenant', tenant, 'caller', caller, 'submittedAt', text(now),
  'token', '0', 'attempts', '0')
for field, value in pairs(fields) do redis.call('HSET', task, field, value) end
store(id, 'bytes', bytes)
move(id, 'Waiting')
if fields.conversation and not join_conversation(id, fields.conversation) then
  -- It joins the queue when the task before it has ended.
elseif redis.call('EXISTS', lines_known_key) == 1 then
  join_queue(id, false)
else
  redis.call('HSET', task, 'entry', redis.call('XADD', stream_key(priority), '*', 'task', id))
  call_worker(fields.revision)
end
if idempotency ~= '' then
  redis.call('SET', key, id)
  redis.call('HSET', task, 'idempotencyEntry', key)
end
append(id, {type = 'Submitted'})
redis.call('ZADD', prefix .. 'tasks', '0', id)
redis.call('ZADD', prefix .. 'tasks-of:' .. caller, '0', id)
return {'Created', id}
