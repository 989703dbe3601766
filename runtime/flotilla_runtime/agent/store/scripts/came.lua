-- What came from outside for a call of a running task. It stays where it is until the call's result is written.
local id, token, call = ARGV[2], ARGV[3], ARGV[4]
if not owned(id, token) then return {'Stale'} end
local taken = {}
for place = 5, #ARGV do taken[ARGV[place]] = true end
local waits = redis.call('HGET', asked_key(id), call)
return waits and came_for(id, call, cjson.decode(waits), taken) or {'Nothing'}
