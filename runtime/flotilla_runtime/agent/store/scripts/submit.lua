-- Creates a task completely or not at all. A second call with the same id or idempotency key returns the same task.
local id, priority, tenant, caller, idempotency = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local quota, fields = cjson.decode(ARGV[7]), cjson.decode(ARGV[8])

-- The input of a task that is not stored may be in the object store already.
local function not_stored(outcome, known)
  if fields.inputPayload and known ~= id then redis.call('SADD', drops_key, id) end
  return {outcome, known}
end

local key = prefix .. 'idempotency:' .. caller .. ':' .. idempotency
if idempotency ~= '' then
  local known = redis.call('GET', key)
  if known then return not_stored('Exists', known) end
end
if redis.call('EXISTS', task_key(id)) == 1 then return {'Exists', id} end

local bytes = TASK_BYTES
for _, value in pairs(fields) do bytes = bytes + #value end
local begun, begun_bytes = {}, 0 -- the results with which a replay begins
for place = 9, #ARGV do
  local entry = string.gsub(ARGV[place], '"at":0', '"at":' .. text(now), 1)
  begun[#begun + 1] = entry
  begun_bytes = begun_bytes + #entry + ENTRY_BYTES
end
local places = tonumber(redis.call('HGET', places_key, caller) or '0')
if waiting() + redis.call('ZCARD', held_back_key) >= quota.places then return not_stored('Full', '') end
if places >= quota.places_each then return not_stored('CallerFull', '') end
local is_full = beyond_quota(caller, bytes + begun_bytes, quota)
if is_full then return not_stored(is_full, '') end

local task = task_key(id)
redis.call('HSET', task, 'id', id, 'priority', priority, 'tenant', tenant, 'caller', caller, 'submittedAt', text(now),
  'token', '0', 'attempts', '0')
for field, value in pairs(fields) do redis.call('HSET', task, field, value) end
note_elsewhere(id, fields.inputPayload)
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
push(id, begun)
redis.call('ZADD', prefix .. 'tasks', '0', id)
redis.call('ZADD', prefix .. 'tasks-of:' .. caller, '0', id)
return {'Created', id}
