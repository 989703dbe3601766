-- Reads or writes a value of the state of a tenant and an agent, and writes the call with its result into the journal: both
-- or neither. So a write happens once for each call, and a read gives the same in each replay. A call for whose entries the
-- caller's share of the bytes has no room does nothing.
local id, token, lease_ms, write, expected = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local agent, operation, key, before, value = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local intent, done, full, most_keys, most_bytes = ARGV[12], ARGV[13], ARGV[14], tonumber(ARGV[15]), tonumber(ARGV[16])
local call, share = ARGV[17], ARGV[18]
-- Of actors, nothing is written while one of `unless` is kept, and a write removes the keys `gone` with all below them.
local is_of_actors = ARGV[19] ~= ''
local unless, gone = unpack(is_of_actors and cjson.decode(ARGV[19]) or {{}, {}})
local VALUE_BYTES = 60 -- what Redis needs for a value besides its text
local held = owned(id, token)
if not held then return {'Stale'} end

-- The result of the call is the journal's last entry, also where this write is sent again, unless the call is refused.
local function answer(refused)
  extend_lease(id, lease_ms, held.worker)
  return {'Written', redis.call('LLEN', journal_key(id)), held.cancel_requested, refused,
    shown_budget(budget_of(id, held.root, token)), redis.call('LINDEX', journal_key(id), -1)}
end

if held.write == write then return answer(held.refused or '') end
if redis.call('LLEN', journal_key(id)) ~= expected then return {'Conflict'} end

local space = (redis.call('HGET', task_key(id), 'tenant') or held.caller) .. ':' .. agent
local state, sizes = prefix .. 'state:' .. space, prefix .. 'state-bytes'
-- The keys of actors are kept in order too, so that those below one are found without a look at the others.
local names = prefix .. 'state-names:' .. space
local now_kept = redis.call('HGET', state, key) or ''

-- The longest result is a value that is read, or that the state is full.
local more = #intent + #full + (operation == 'Get' and #now_kept or 0) + 2 * ENTRY_BYTES
if is_beyond_share(held.caller, more, share) then
  local refused = cjson.encode({no_room(call, held.caller, more, share)})
  redis.call('HSET', task_key(id), 'write', write, 'refused', refused)
  return answer(refused)
end

local function is_fenced()
  for _, name in ipairs(unless) do
    if redis.call('HEXISTS', state, name) == 1 then return true end
  end
  return false
end

local function size_of(name, length)
  return length == 0 and 0 or length + (#name + VALUE_BYTES) * (is_of_actors and 2 or 1)
end

local function remove(name)
  redis.call('HDEL', state, name)
  if is_of_actors then redis.call('ZREM', names, name) end
end

-- The keys that go with this write, and their bytes. 0 follows / in the order of keys.
local function going()
  local found, bytes = {}, 0
  local function add(name)
    local length = redis.call('HSTRLEN', state, name)
    if length == 0 or name == key then return end
    table.insert(found, name)
    bytes = bytes + size_of(name, length)
  end
  for _, top in ipairs(gone) do
    add(top)
    for _, name in ipairs(redis.call('ZRANGEBYLEX', names, '[' .. top .. '/', '(' .. top .. '0')) do add(name) end
  end
  return found, bytes
end

-- An empty value removes the key. Whether there was room.
local function put()
  local others, freed = going()
  local more = size_of(key, #value) - size_of(key, #now_kept) - freed
  local bytes = tonumber(redis.call('HGET', sizes, space) or '0') + more
  local is_beyond = now_kept == '' and value ~= '' and redis.call('HLEN', state) - #others >= most_keys
  if more > 0 and (bytes > most_bytes or is_beyond) then return false end
  for _, name in ipairs(others) do remove(name) end
  if value == '' then
    remove(key)
  else
    redis.call('HSET', state, key, value)
    if is_of_actors then redis.call('ZADD', names, '0', key) end
  end
  count(sizes, space, more)
  count(stored_key, EVERYBODY, more)
  return true
end

local function with_result(text) return string.sub(done, 1, -2) .. ',"value":' .. text .. '}' end

local result
if operation == 'Get' then
  result = with_result(now_kept == '' and 'null' or now_kept)
elseif is_fenced() or (operation == 'CompareAndSwap' and now_kept ~= before) then
  result = with_result('false')
else
  result = put() and with_result('true') or full
end
push(id, {intent, result}, held.caller)
redis.call('HSET', task_key(id), 'write', write)
redis.call('HDEL', task_key(id), 'refused')
return answer('')
