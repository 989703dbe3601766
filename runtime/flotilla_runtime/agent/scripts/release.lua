-- Hands a task over when its worker stops: the lease ends now, this attempt is not counted, and the token is invalid.
local id, token, worker = ARGV[2], ARGV[3], ARGV[4]
if not owns(id, token) then return 'Stale' end
redis.call('HINCRBY', task_key(id), 'attempts', -1)
redis.call('HINCRBY', task_key(id), 'token', 1)
append(id, {type = 'HandedOver', at = now_ms(), worker = worker})
redis.call('ZADD', leases_key, '0', id)
return 'Written'
