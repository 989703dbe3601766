-- Grants tasks to the worker that claims. The new token makes the writes of every earlier holder stale. It grows by a
-- number that the worker has drawn, so a token that a failover of Redis has lost is not granted again.
local GRANTS_KEPT_MS = 600000
local grants_key = prefix .. 'granted:' .. asked.request
local granted = {}

local function grant(id)
  local task = task_key(id)
  if redis.call('EXISTS', task) == 0 then return end
  local token = text(redis.call('HINCRBY', task, 'token', asked.step))
  local held = redis.call('HMGET', task, 'attempts', 'resumedAt')
  local attempt = math.max(1, tonumber(held[1]))
  if held[2] then redis.call('HINCRBY', task, 'suspendedMs', text(math.max(0, now - tonumber(held[2])))) end
  redis.call('HSET', task, 'worker', asked.worker, 'attempts', text(attempt))
  redis.call('HSETNX', task, 'startedAt', text(now))
  redis.call('HDEL', task, 'entry', 'lost', 'resumedAt', 'write', 'refused')
  move(id, 'Running')
  append(id, {type = 'Claimed', worker = string.match(asked.worker, '^[^#]*'), attempt = attempt})
  redis.call('SADD', held_key(asked.worker), id)
  extend_lease(id, asked.lease_ms, asked.worker)
  granted[#granted + 1] = {id, token}
end

-- A request that is sent again, because its answer was lost, gets the same tasks, except those that others hold now. If
-- others have all of them, it asks anew.
local function grant_again()
  local known = redis.call('GET', grants_key)
  if not known then return end
  for _, before in ipairs(cjson.decode(known)) do
    local held = owned(before[1], before[2])
    if held then
      extend_lease(before[1], asked.lease_ms, held.worker)
      granted[#granted + 1] = before
    end
  end
  if #granted == 0 then redis.call('DEL', grants_key) end
end

local function remember_grants()
  if #granted > 0 then redis.call('SET', grants_key, cjson.encode(granted), 'PX', GRANTS_KEPT_MS) end
end
