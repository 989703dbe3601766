-- How spawn.lua and deliver.lua begin: a task writes an intent, and the task that it makes stands below it. Its id is made
-- from the id of the one above and the call's, so a write that is sent again makes no second one.
local id, token, lease_ms, write, expected = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local child, call, entry, about, input = ARGV[7], ARGV[8], ARGV[9], cjson.decode(ARGV[10]), ARGV[11]
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

local above = redis.call('HMGET', task_key(id), 'tenant', 'caller', 'priority', 'revision', 'limits', 'depth',
  'tenantName', 'agent', 'traceparent')
local tenant, limits = above[1] or above[2], cjson.decode(above[5])
-- Tasks of version 0.1.0 have no such limits.
local max_depth, max_fan_out = limits.max_depth or 2, limits.max_fan_out or 5
local is_known = redis.call('EXISTS', task_key(child)) == 1

local function refuse(limit, most, committed, may_change)
  return remember(cjson.encode({{call = call, limit = limit, most = text(most), committed = text(committed),
    wanted = '1', may_change = may_change}}))
end

-- Reserves and writes the intent; the refusal of a limit, if there is one.
local function write_intent(kind)
  local refused = reserve(budget, call, {Steps = about.steps, Tokens = about.tokens, Nano = about.nano, kind = kind,
    target = about.target})
  if not refused then push(id, {entry}, held.caller) end
  save_budget(budget)
  return refused
end

-- Its time is that which the task above has left.
local function end_with_the_one_above()
  limits.max_wall_seconds = math.max(0, limits.max_wall_seconds - elapsed_ms(id) / 1000)
end

local function make_child(depth, agent)
  redis.call('HSET', task_key(child), 'id', child, 'input', input, 'limits', cjson.encode(limits), 'metadata', '{}',
    'priority', above[3], 'tenant', tenant, 'caller', above[2], 'revision', above[4], 'submittedAt', text(now),
    'token', '0', 'attempts', '0', 'root', budget.root, 'depth', text(depth), 'tenantName', above[7] or '')
  if agent then redis.call('HSET', task_key(child), 'agent', agent) end
  if above[9] then redis.call('HSET', task_key(child), 'traceparent', above[9]) end
end

local function await_child()
  redis.call('HSET', task_key(child), 'parent', id)
  redis.call('SADD', children_key(id), child)
end
