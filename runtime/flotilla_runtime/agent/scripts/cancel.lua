-- Ends a waiting task. For a running task it records the request; the worker that holds the task, or the next one
-- that does, ends it.
local id = ARGV[2]
local held = redis.call('HMGET', task_key(id), 'status', 'priority', 'entry')
if not held[1] then return 'Unknown' end
if held[1] == 'Waiting' then
  redis.call('XDEL', queue_key(held[2]), held[3])
  end_task(id, 'Cancelled', 'Cancelled', 'cancelled before it started', {})
  return 'Cancelled'
end
if held[1] ~= 'Running' then return 'Ended' end
redis.call('HSETNX', task_key(id), 'cancelRequested', text(now_ms()))
return 'Requested'
