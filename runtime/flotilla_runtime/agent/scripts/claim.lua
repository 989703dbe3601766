-- The only way to get a task, for its first run and for its recovery. Tasks whose lease has ended come first. Then
-- interactive tasks go before batch tasks, except that each tenth grant from the queue goes to batch first, so that batch
-- tasks never starve. The new token makes the writes of every earlier holder stale. It grows by a
-- number that the worker has drawn, so a token that a failover of Redis has lost is not granted again.
-- A request that is sent again, because its answer was lost, gets the same tasks, except those that others hold now.
local worker, lease_ms, wanted, request, step = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local ANSWER_KEPT_MS = 600000
local BATCH_FIRST_EVERY = 10
local answer = prefix .. 'granted:' .. request
local granted = {}

local known = redis.call('GET', answer)
if known then
  for _, held in ipairs(cjson.decode(known)) do
    if owns(held[1], held[2]) then
      extend_lease(held[1], lease_ms)
      granted[#granted + 1] = held
    end
  end
  return granted
end

local function grant(id)
  local task = task_key(id)
  if redis.call('EXISTS', task) == 0 then
    redis.call('ZREM', leases_key, id)
    return
  end
  local now = now_ms()
  local token = text(redis.call('HINCRBY', task, 'token', step))
  local attempt = redis.call('HINCRBY', task, 'attempts', 1)
  redis.call('HSET', task, 'status', 'Running', 'worker', worker)
  redis.call('HSETNX', task, 'startedAt', text(now))
  append(id, {type = 'Claimed', at = now, worker = worker, attempt = attempt})
  extend_lease(id, lease_ms)
  granted[#granted + 1] = {id, token}
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases_key, '-inf', text(now_ms()), 'LIMIT', 0, wanted)) do
  grant(id)
end
for _, priority in ipairs({'Interactive', 'Batch'}) do
  local stream = stream_key(priority)
  if #granted < wanted then
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', wanted - #granted)) do
      redis.call('XDEL', stream, entry[1])
      grant(entry[2][2])
    end
  end
end
while #granted < wanted do
  local taken = tonumber(redis.call('GET', prefix .. 'taken') or '0') + 1
  local first, second = 'Interactive', 'Batch'
  if taken % BATCH_FIRST_EVERY == 0 then first, second = second, first end
  local id = take(first) or take(second)
  if not id then break end
  redis.call('SET', prefix .. 'taken', text(taken))
  grant(id)
end
if redis.call('EXISTS', lines_known_key) == 0 then redis.call('SET', lines_known_key, '1') end
if #granted > 0 then redis.call('SET', answer, cjson.encode(granted), 'PX', ANSWER_KEPT_MS) end
if waiting() == 0 then redis.call('DEL', prefix .. 'calls') end
return granted
