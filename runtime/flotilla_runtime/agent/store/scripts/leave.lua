-- A worker that stops takes no part in what waits. What it still holds is found when its leases end.
local worker, revision = ARGV[2], ARGV[3]
redis.call('ZREM', takers_key(revision), worker)
if redis.call('EXISTS', held_key(worker)) == 0 then redis.call('ZREM', workers_key, worker) end
return 'Left'
