-- What there is now, for the fleet's status. Timers that have rung count as waiting tasks, so a fleet without workers
-- gets one for them.
local AT_ONCE = 1000
wake_due(AT_ONCE)

local function all_of(key)
  local flat, fields = redis.call('HGETALL', key), {}
  for place = 1, #flat, 2 do fields[flat[place]] = tonumber(flat[place + 1]) end
  return fields
end

local oldest = nil
for _, priority in ipairs(PRIORITIES) do
  local line = redis.call('ZRANGE', waiting_key(priority), 0, 0, 'WITHSCORES')
  local stream = redis.call('XRANGE', stream_key(priority), '-', '+', 'COUNT', 1)
  for _, since in ipairs({line[2] or false, stream[1] and string.match(stream[1][1], '^%d+') or false}) do
    if since then oldest = math.min(oldest or tonumber(since), tonumber(since)) end
  end
end

local workers = {}
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', workers_key, '(' .. text(now), '+inf')) do
  local name = string.match(worker, '^[^#]*')
  workers[name] = (workers[name] or 0) + redis.call('SCARD', held_key(worker))
end

local told = {
  waiting = waiting(),
  running = redis.call('ZCARD', leases_key) + redis.call('ZCARD', old_leases_key),
  suspended = redis.call('ZCARD', suspended_key),
  unknown_effects = redis.call('ZCARD', unknown_key),
  waiting_for_approval = redis.call('ZCARD', approvals_key),
  dead_letters = redis.call('ZCARD', dead_letters_key),
  stored_bytes = tonumber(redis.call('HGET', stored_key, EVERYBODY) or '0'),
  counts = all_of(counts_key),
  demand = all_of(demand_key),
  workers = workers,
}
if oldest then told.oldest_waiting_ms = math.max(0, now - oldest) end
return cjson.encode(told)
