-- Writes the intent of a spawned task and submits that task, both or neither. Its id is made from its parent's and the
-- call's, so a write that is sent again makes no second one. Its agent is the target of the call, else that of its parent.
local id, token, lease_ms, write, expected = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local child, call, entry, about, input = ARGV[7], ARGV[8], ARGV[9], cjson.decode(ARGV[10]), ARGV[11]
local input_payload, share = ARGV[12], ARGV[13]
-- The limits of a task of version 0.1.0.
local DEFAULT_DEPTH, DEFAULT_FAN_OUT = 2, 5
local held = owned(id, token)
if not held then return {'Stale'} end

local budget = budget_of(id, held.root, token)
local function answer(refused)
  extend_lease(id, lease_ms, held.worker)
  return {'Written', redis.call('LLEN', journal_key(id)), held.cancel_requested, refused, shown_budget(budget)}
end

local function remember(refused)
  redis.call('HSET', task_key(id), 'write', write, 'refused', refused)
  return answer(refused)
end

if held.write == write then return answer(held.refused or '') end
if redis.call('LLEN', journal_key(id)) ~= expected then return {'Conflict'} end

local parent = redis.call('HMGET', task_key(id), 'tenant', 'caller', 'priority', 'revision', 'limits', 'depth',
  'tenantName', 'agent', 'traceparent')
local limits, depth = cjson.decode(parent[5]), tonumber(parent[6] or '0') + 1
local function refuse(limit, most, committed, may_change)
  return remember(cjson.encode({{call = call, limit = limit, most = text(most), committed = text(committed),
    wanted = '1', may_change = may_change}}))
end

local more = TASK_BYTES + #input + #entry
if is_beyond_share(held.caller, more, share) then
  return remember(cjson.encode({no_room(call, held.caller, more, share)}))
end
local is_known = redis.call('EXISTS', task_key(child)) == 1
local under_way = redis.call('SCARD', children_key(id))
local max_depth, max_fan_out = limits.max_depth or DEFAULT_DEPTH, limits.max_fan_out or DEFAULT_FAN_OUT
if not is_known and depth > max_depth then return refuse('maxDepth', max_depth, depth - 1, false) end
if not is_known and under_way >= max_fan_out then return refuse('maxFanOut', max_fan_out, under_way, true) end
local refused = reserve(budget, call, {Steps = about.steps, Tokens = about.tokens, Nano = about.nano, kind = 'Spawn',
  target = about.target})
if refused then
  save_budget(budget)
  return remember(cjson.encode({refused}))
end
push(id, {entry}, held.caller)
save_budget(budget)
if is_known then return remember('') end

-- It may run for as long as its parent may go on.
limits.max_wall_seconds = math.max(0, limits.max_wall_seconds - elapsed_ms(id) / 1000)
redis.call('HSET', task_key(child), 'id', child, 'input', input, 'limits', cjson.encode(limits), 'metadata', '{}',
  'priority', parent[3], 'tenant', parent[1] or parent[2], 'caller', parent[2], 'revision', parent[4],
  'submittedAt', text(now), 'token', '0', 'attempts', '0', 'root', budget.root, 'parent', id, 'depth', text(depth),
  'tenantName', parent[7] or '')
local agent = about.target ~= '' and about.target or parent[8]
if agent then redis.call('HSET', task_key(child), 'agent', agent) end
if parent[9] then redis.call('HSET', task_key(child), 'traceparent', parent[9]) end
if input_payload ~= '' then
  redis.call('HSET', task_key(child), 'inputPayload', input_payload)
  note_elsewhere(child, true)
end
store(child, 'bytes', TASK_BYTES + #input)
redis.call('SADD', children_key(id), child)
append(child, {type = 'Submitted'})
move(child, 'Waiting')
join_queue(child, false)
return remember('')
