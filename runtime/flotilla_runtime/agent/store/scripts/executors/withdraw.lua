-- Takes a request back for which nobody waits any more.
local id, waiter = ARGV[2], ARGV[3]
local key = request_key(id)
local held = redis.call('HMGET', key, 'state', 'waiter', 'executor')
if held[2] ~= waiter then return 'Ignored' end
if take_back(id) then return 'Withdrawn' end
if held[1] ~= 'Running' then return 'Ignored' end
redis.call('HSET', key, 'withdrawn', '1')
tell(held[3], id)
return 'Stopping'
