-- What graphs keep between their steps: a hash of fields for each task, or for the conversation that it is in. Workers name
-- the fields, which begin with a bracket. Beside them are the bytes of all, and the caller for whom they count: the one whose
-- task has written last.
local CHECKPOINT_BYTES = 60 -- what Redis needs for a field besides its texts

local function checkpoints_key(space) return prefix .. 'checkpoints:' .. space end
local function space_of_conversation(name) return 'conversation:' .. name end

local function drop_checkpoints(space)
  local held = redis.call('HMGET', checkpoints_key(space), 'caller', 'bytes')
  if not held[1] then return end
  count(stored_key, held[1], -tonumber(held[2]))
  count(stored_key, EVERYBODY, -tonumber(held[2]))
  redis.call('UNLINK', checkpoints_key(space))
end
