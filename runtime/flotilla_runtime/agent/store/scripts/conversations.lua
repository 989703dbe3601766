-- Conversations. Tasks of one conversation run one after another, in the order of their submission. All but the first
-- wait apart, in the conversation's line: they have a place in the queue, but like suspended tasks they need no worker.
-- The turns of a conversation are what later tasks of it are told. Each counts for the caller of its task.
local MOST_TURN_BYTES = 262144

-- Conversations without a live task, by the time at which the last one ended.
local conversations_key = prefix .. 'conversations'
local held_back_key = prefix .. 'held-back'
local function conversation_key(name) return prefix .. 'conversation:' .. name end
local function turns_key(name) return prefix .. 'turns:' .. name end
local function conversation_line_key(name) return prefix .. 'conversation-line:' .. name end

local function count_held_back(id, by)
  local revision = place_of(id).revision
  count(counts_key, 'Waiting:' .. revision, -by)
  count(counts_key, 'Suspended:' .. revision, by)
end

-- Whether a task that was submitted may join the queue now.
local function join_conversation(id, name)
  redis.call('ZREM', conversations_key, name)
  if redis.call('RPUSH', conversation_line_key(name), id) == 1 then return true end
  redis.call('ZADD', held_back_key, text(now), id)
  count_held_back(id, 1)
  return false
end

local function count_turn(name, caller, bytes)
  count(conversation_key(name), caller, bytes)
  count(stored_key, caller, bytes)
  count(stored_key, EVERYBODY, bytes)
end

-- The caller stands in front of what was said.
local function drop_turn(name)
  local turn = redis.call('LPOP', turns_key(name))
  count_turn(name, string.match(turn, '^%S*'), -(#turn + ENTRY_BYTES))
  return #turn + ENTRY_BYTES
end

local function add_turn(name, caller, said)
  local turn = caller .. ' ' .. said
  redis.call('RPUSH', turns_key(name), turn)
  count_turn(name, caller, #turn + ENTRY_BYTES)
  local sum = 0
  for _, bytes in ipairs(redis.call('HVALS', conversation_key(name))) do sum = sum + tonumber(bytes) end
  while sum > MOST_TURN_BYTES and redis.call('LLEN', turns_key(name)) > 1 do sum = sum - drop_turn(name) end
end

-- A task has ended, and the next one of its conversation may run. `said` is the turn that it adds, if any.
local function leave_conversation(id, said)
  local held = redis.call('HMGET', task_key(id), 'conversation', 'caller')
  local name = held[1]
  if not name then return end
  if redis.call('ZREM', held_back_key, id) == 1 then count_held_back(id, -1) end
  redis.call('LREM', conversation_line_key(name), 1, id)
  if said then add_turn(name, held[2], said) end
  local first = redis.call('LINDEX', conversation_line_key(name), 0)
  if not first then
    redis.call('ZADD', conversations_key, text(now), name)
  elseif redis.call('ZREM', held_back_key, first) == 1 then
    count_held_back(first, -1)
    join_queue(first, false)
  end
end
