-- The only way to get a task, for its first run and for its recovery. Tasks whose lease has ended come first, then the
-- interactive queue, then the batch queue. The new token makes the writes of every earlier holder stale.
local worker, lease_ms, wanted = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local granted = {}

local function grant(id)
  local task = task_key(id)
  if redis.call('EXISTS', task) == 0 then
    redis.call('ZREM', leases_key, id)
    return
  end
  local now = now_ms()
  local token = redis.call('HINCRBY', task, 'token', 1)
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
  local queue = queue_key(priority)
  if #granted < wanted then
    for _, entry in ipairs(redis.call('XRANGE', queue, '-', '+', 'COUNT', wanted - #granted)) do
      redis.call('XDEL', queue, entry[1])
      grant(entry[2][2])
    end
  end
end
return granted
