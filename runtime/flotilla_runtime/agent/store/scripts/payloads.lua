-- Texts of more than 64 KiB: what calls were asked and answered, and how the task ended. A task has each of its texts
-- once, under the text's hash, in a hash of its own. What is in an object store is not here; the task's field
-- `elsewhere` says that there is something.
local PAYLOAD_BYTES = 120
local LARGE = 65536

local function payloads_key(id) return prefix .. 'payloads:' .. id end
-- Tasks of which the object store has something that is to be deleted.
local drops_key = prefix .. 'drops'

local function payload_bytes(id, hash, text)
  if text == '' or redis.call('HEXISTS', payloads_key(id), hash) == 1 then return 0 end
  return #text + PAYLOAD_BYTES
end

local function keep_payload(id, hash, text, caller)
  local bytes = payload_bytes(id, hash, text)
  if bytes == 0 then return end
  redis.call('HSET', payloads_key(id), hash, text)
  store(id, 'payloadBytes', bytes, caller)
end

local function note_elsewhere(id, is_elsewhere)
  if is_elsewhere then redis.call('HSET', task_key(id), 'elsewhere', '1') end
end

-- Removes what only the journal names: all but the hashes of what the task was submitted with and ended with.
local function drop_journal_payloads(id)
  local held = redis.call('HMGET', task_key(id), 'caller', 'resultPayload', 'partialPayload', 'elsewhere')
  local named = {}
  for place = 2, 3 do
    if held[place] then named[cjson.decode(held[place]).hash] = true end
  end
  local bytes = 0
  for _, hash in ipairs(redis.call('HKEYS', payloads_key(id))) do
    if not named[hash] then
      bytes = bytes + redis.call('HSTRLEN', payloads_key(id), hash) + PAYLOAD_BYTES
      redis.call('HDEL', payloads_key(id), hash)
    end
  end
  if bytes > 0 then store(id, 'payloadBytes', -bytes, held[1]) end
  if held[4] then redis.call('SADD', drops_key, id) end
end
