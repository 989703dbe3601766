-- Writes the intent of a message to an actor and submits the task that handles it, both or neither. The tasks of an actor
-- run in order like those of a conversation, and its mailbox is their line.
local MOST_FOLLOWED = 200
local share, told = ARGV[12], cjson.decode(ARGV[13])
-- The tenant is the task's own, so no agent names another's. No conversation has such a name.
local mailbox = 'actor-' .. redis.sha1hex(tenant .. ':' .. told.space .. ':' .. told.line[#told.line])

local function has_ended()
  for _, name in ipairs(told.line) do
    if redis.call('HEXISTS', prefix .. 'state:' .. tenant .. ':' .. told.space, 'ended/' .. name) == 1 then return true end
  end
  return false
end

-- The task and those above it, which wait for it.
local function askers()
  local found, asker = {}, id
  while asker do
    found[asker] = true
    asker = redis.call('HGET', task_key(asker), 'parent')
  end
  return found
end

-- The task that must end before a message of this mailbox is handled, if there is one.
local function head_of(name) return redis.call('LINDEX', conversation_line_key(name), 0) end

-- The answer to this question would wait for who asks. Each task waits for those that it asked or spawned, and a message for
-- the head of its mailbox.
local function asks_itself()
  local waiting, seen, followed, place = askers(), {}, {head_of(mailbox)}, 1
  while followed[place] do
    if waiting[followed[place]] then return true end
    for _, below in ipairs(redis.call('SMEMBERS', children_key(followed[place]))) do
      if #followed >= MOST_FOLLOWED then break end
      local name = redis.call('HGET', task_key(below), 'conversation')
      local next_one = name and head_of(name) or below
      if not seen[next_one] then table.insert(followed, next_one) end
      seen[next_one] = true
    end
    place = place + 1
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
