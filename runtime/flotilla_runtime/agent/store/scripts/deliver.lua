-- Writes the intent of a message to an actor and submits the task that handles it, both or neither. The tasks of an actor
-- run in order like those of a conversation, and its mailbox is their line.
local share, told = ARGV[12], cjson.decode(ARGV[13])
-- The tenant is the task's own, so no agent names another's. No conversation has such a name.
local mailbox = 'actor-' .. redis.sha1hex(tenant .. ':' .. told.space .. ':' .. told.line[#told.line])

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
    local found = redis.call('HMGET', task_key(asker), 'conversation', 'parent')
    if found[1] == mailbox then return true end
    asker = found[2]
  end
  return false
end

local more = TASK_BYTES + #input + #entry + #told.actor
if is_beyond_share(held.caller, more, share) then
  return remember(cjson.encode({no_room(call, held.caller, more, share)}))
end
local depth = tonumber(above[6] or '0') + (told.is_asked and 1 or 0)
if not is_known then
  local waiting, under_way = redis.call('LLEN', conversation_line_key(mailbox)), redis.call('SCARD', children_key(id))
  if has_ended() then return refuse('actorEnded', 0, 0, false) end
  if told.is_asked and asks_itself() then return refuse('asksItself', 0, 0, false) end
  if waiting >= told.mailbox then return refuse('mailbox', told.mailbox, waiting, false) end
  if told.is_asked and depth > max_depth then return refuse('maxDepth', max_depth, depth - 1, false) end
  if told.is_asked and under_way >= max_fan_out then return refuse('maxFanOut', max_fan_out, under_way, true) end
end
local refused = write_intent(about.kind)
if refused then return remember(cjson.encode({refused})) end
if is_known then return remember('') end

-- Who asks waits for no longer than its own time. A message that was told outlives its sender.
if told.is_asked then end_with_the_one_above() end
make_child(depth, above[8])
redis.call('HSET', task_key(child), 'actor', told.actor, 'conversation', mailbox, 'compensates', '1')
if told.is_asked then await_child() end
store(child, 'bytes', TASK_BYTES + #input + #told.actor)
append(child, {type = 'Submitted'})
move(child, 'Waiting')
if join_conversation(child, mailbox) then join_queue(child, false) end
return remember('')
