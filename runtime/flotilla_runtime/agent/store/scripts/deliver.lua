-- Writes the intent of a message to an actor and submits the task that handles it, both or neither. The tasks of an actor
-- run in order like those of a conversation, and its mailbox is their line. The task's id is made from its sender's and the
-- call's, so a write that is sent again sends no second message.
local id, token, lease_ms, write, expected = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local child, call, entry, about, input = ARGV[7], ARGV[8], ARGV[9], cjson.decode(ARGV[10]), ARGV[11]
local share, told = ARGV[12], cjson.decode(ARGV[13])
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

local sender = redis.call('HMGET', task_key(id), 'tenant', 'caller', 'priority', 'revision', 'limits', 'depth',
  'tenantName', 'agent', 'traceparent')
local tenant, limits = sender[1] or sender[2], cjson.decode(sender[5])
-- The tenant is the task's own, so no agent names another's. No conversation has such a name.
local mailbox = 'actor-' .. redis.sha1hex(tenant .. ':' .. told.space .. ':' .. told.line[#told.line])
local function refuse(limit, most, committed, may_change)
  return remember(cjson.encode({{call = call, limit = limit, most = text(most), committed = text(committed),
    wanted = '1', may_change = may_change}}))
end

local function has_ended()
  for _, name in ipairs(told.line) do
    if redis.call('HEXISTS', prefix .. 'state:' .. tenant .. ':' .. told.space, 'ended/' .. name) == 1 then return true end
  end
  return false
end

-- The actor handles a message now whose handler waits, by others, for the answer to this one.
local function asks_itself()
  local asker = id
  while asker do
    local above = redis.call('HMGET', task_key(asker), 'conversation', 'parent')
    if above[1] == mailbox then return true end
    asker = above[2]
  end
  return false
end

local more = TASK_BYTES + #input + #entry + #told.actor
if is_beyond_share(held.caller, more, share) then
  return remember(cjson.encode({no_room(call, held.caller, more, share)}))
end
local is_known = redis.call('EXISTS', task_key(child)) == 1
local depth = tonumber(sender[6] or '0') + (told.is_asked and 1 or 0)
if not is_known then
  local waiting, under_way = redis.call('LLEN', conversation_line_key(mailbox)), redis.call('SCARD', children_key(id))
  local max_depth, max_fan_out = limits.max_depth or 2, limits.max_fan_out or 5
  if has_ended() then return refuse('actorEnded', 0, 0, false) end
  if told.is_asked and asks_itself() then return refuse('asksItself', 0, 0, false) end
  if waiting >= told.mailbox then return refuse('mailbox', told.mailbox, waiting, false) end
  if told.is_asked and depth > max_depth then return refuse('maxDepth', max_depth, depth - 1, false) end
  if told.is_asked and under_way >= max_fan_out then return refuse('maxFanOut', max_fan_out, under_way, true) end
end
local refused = reserve(budget, call, {Steps = about.steps, Tokens = about.tokens, Nano = about.nano, kind = about.kind,
  target = about.target})
if refused then
  save_budget(budget)
  return remember(cjson.encode({refused}))
end
push(id, {entry}, held.caller)
save_budget(budget)
if is_known then return remember('') end

-- Who asks waits for no longer than its own time. A message that was told outlives its sender.
if told.is_asked then limits.max_wall_seconds = math.max(0, limits.max_wall_seconds - elapsed_ms(id) / 1000) end
redis.call('HSET', task_key(child), 'id', child, 'input', input, 'limits', cjson.encode(limits), 'metadata', '{}',
  'priority', sender[3], 'tenant', tenant, 'caller', sender[2], 'revision', sender[4], 'submittedAt', text(now),
  'token', '0', 'attempts', '0', 'root', budget.root, 'depth', text(depth), 'tenantName', sender[7] or '', 'actor',
  told.actor, 'conversation', mailbox, 'compensates', '1')
if sender[9] then redis.call('HSET', task_key(child), 'traceparent', sender[9]) end
if sender[8] then redis.call('HSET', task_key(child), 'agent', sender[8]) end
if told.is_asked then
  redis.call('HSET', task_key(child), 'parent', id)
  redis.call('SADD', children_key(id), child)
end
store(child, 'bytes', TASK_BYTES + #input + #told.actor)
append(child, {type = 'Submitted'})
move(child, 'Waiting')
if join_conversation(child, mailbox) then join_queue(child, false) end
return remember('')
