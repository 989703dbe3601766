-- The bytes that a caller's tasks hold, within its share. A call keeps room for its result before it is made, so a result
-- can always be written. `promised` has the room that the calls under way of each caller keep.
local promised_key = prefix .. 'promised'
local function rooms_key(id) return prefix .. 'rooms:' .. id end

local function give_room(id, call, caller)
  local bytes = tonumber(redis.call('HGET', rooms_key(id), call) or '0')
  if bytes == 0 then return end
  redis.call('HDEL', rooms_key(id), call)
  count(promised_key, caller, -bytes)
end

local function keep_room(id, call, bytes, caller)
  give_room(id, call, caller)
  if bytes == 0 then return end
  redis.call('HSET', rooms_key(id), call, text(bytes))
  count(promised_key, caller, bytes)
end

local function room_of(id, call) return tonumber(redis.call('HGET', rooms_key(id), call) or '0') end

local function give_all_room(id, caller)
  local bytes = 0
  for _, room in ipairs(redis.call('HVALS', rooms_key(id))) do bytes = bytes + tonumber(room) end
  if bytes == 0 then return end
  redis.call('DEL', rooms_key(id))
  count(promised_key, caller, -bytes)
end

local function amount_of(key, caller) return tonumber(redis.call('HGET', key, caller) or '0') end

-- Whether this much more is too much. Without a share there is no limit.
local function is_beyond_share(caller, more, share)
  if share == '' then return false end
  return amount_of(stored_key, caller) + amount_of(promised_key, caller) + more > tonumber(share)
end

-- Which quota these bytes of a caller would exceed; nil if they may be stored.
local function beyond_quota(caller, more, quota)
  if quota.memory_full or (quota.bytes and amount_of(stored_key, EVERYBODY) + more > quota.bytes) then return 'StoreFull' end
  return is_beyond_share(caller, more, quota.bytes_each or '') and 'CallerStoreFull' or nil
end

local function no_room(call, caller, more, share)
  local held = amount_of(stored_key, caller) + amount_of(promised_key, caller)
  return {call = call, limit = 'queuePercent', most = share, committed = text(held), wanted = text(more),
    may_change = amount_of(promised_key, caller) > 0}
end
