-- Changes the checkpoints of a task's graph, all or nothing. Fields that are put take the place of what is there; fields that
-- are added do not. A change that is sent again leaves the same.
local id, token, lease_ms, share, most_bytes = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local puts, adds = tonumber(ARGV[7]), tonumber(ARGV[8])
local held = owned(id, token)
if not held then return {'Stale'} end
local conversation = redis.call('HGET', task_key(id), 'conversation')
local key = checkpoints_key(conversation and space_of_conversation(conversation) or id)
local first_add = 9 + 2 * puts
local first_drop = first_add + 2 * adds

local function size_of(field)
  local length = redis.call('HSTRLEN', key, field)
  return length == 0 and 0 or #field + length + CHECKPOINT_BYTES
end

local changed, more = {}, 0
for place = 9, first_drop - 1, 2 do
  local field, text = ARGV[place], ARGV[place + 1]
  local before = size_of(field)
  if place < first_add or before == 0 then
    changed[#changed + 1] = place
    more = more + #field + #text + CHECKPOINT_BYTES - before
  end
end
for place = first_drop, #ARGV do more = more - size_of(ARGV[place]) end

local before = redis.call('HMGET', key, 'caller', 'bytes')
local owner, bytes = before[1] or held.caller, tonumber(before[2] or '0')
if more > 0 and bytes + more > most_bytes then return {'Full', text(bytes + more)} end
local mine = owner == held.caller and more or bytes + more
if mine > 0 and is_beyond_share(held.caller, mine, share) then
  return {'NoRoom', text(amount_of(stored_key, held.caller) + amount_of(promised_key, held.caller)), share, text(mine)}
end

for _, place in ipairs(changed) do redis.call('HSET', key, ARGV[place], ARGV[place + 1]) end
for place = first_drop, #ARGV do redis.call('HDEL', key, ARGV[place]) end
if owner ~= held.caller then count(stored_key, owner, -bytes) end
count(stored_key, held.caller, mine)
count(stored_key, EVERYBODY, more)
redis.call('HSET', key, 'caller', held.caller, 'bytes', text(bytes + more))
extend_lease(id, lease_ms, held.worker)
return {'Written', text(bytes + more)}
