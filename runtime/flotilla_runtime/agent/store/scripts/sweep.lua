-- Finds the tasks whose leases have ended.

-- A worker that was heard of after it renewed this lease may live, or may have been lost a moment ago: its other leases
-- end soon. If it lives on for another lease, this run alone has stopped.
local function sweep(limit, lease_ms, max_attempts)
  local adopted = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', old_leases_key, '-inf', text(now), 'LIMIT', 0, limit)) do
    if adopt_lease(id) then adopted[#adopted + 1] = id end
  end
  for _, id in ipairs(adopted) do lose(id, false, max_attempts) end
  local ends = redis.call('ZRANGEBYSCORE', leases_key, '-inf', text(now), 'WITHSCORES', 'LIMIT', 0, limit)
  for place = 1, #ends, 2 do
    local id, ended = ends[place], tonumber(ends[place + 1])
    local worker = redis.call('HGET', task_key(id), 'worker')
    local lives = worker and tonumber(redis.call('ZSCORE', workers_key, worker) or '0') > now
    if not worker then
      redis.call('ZREM', leases_key, id)
    elseif not lives or ended + lease_ms <= now then
      lose(id, lives, max_attempts)
    end
  end
end
