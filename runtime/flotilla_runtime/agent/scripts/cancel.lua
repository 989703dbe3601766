-- Ends a waiting task. For a running task it records the request; the worker that holds the task, or the next one
-- that does, ends it.
local id = ARGV[2]
local held = redis.call('HMGET', task_key(id), 'status', 'priority', 'entry', 'tenant', 'caller')
if not held[1] then return 'Unknown' end
if held[1] == 'Waiting' then
  if held[3] then
    redis.call('XDEL', stream_key(held[2]), held[3])
  else
    leave_queue(id, held[2], held[4], held[5])
  end
  end_task(id, 'Cancelled', 'Cancelled', 'cancelled before it started', {})
  return 'Cancelled'
end
if held[1] ~= 'Running' then return 'Ended' end
redis.call('HSETNX', task_key(id), 'cancelRequested', text(now_ms()))
return 'Requested'
