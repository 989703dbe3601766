-- Ends a waiting or suspended task, and what it has spawned. For a running task, and one with compensations, it records
-- the request; the worker that holds the task, or the next one that does, ends it.
local id = ARGV[2]
local held = redis.call('HMGET', task_key(id), 'status', 'startedAt')
if not held[1] then return 'Unknown' end
if not LIVE[held[1]] then return 'Ended' end
cancel_task(id, held[2] and 'cancelled by the caller' or 'cancelled before it started')
return LIVE[redis.call('HGET', task_key(id), 'status')] and 'Requested' or 'Cancelled'
