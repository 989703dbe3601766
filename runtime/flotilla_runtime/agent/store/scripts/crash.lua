-- The run of a task stopped by an error that is neither its agent's nor Redis'. It is laid to the task, which loses this
-- attempt and runs on alone.
local id, token, max_attempts = ARGV[2], ARGV[3], tonumber(ARGV[4])
if not owned(id, token) then return 'Stale' end
lose(id, true, max_attempts)
redis.call('HDEL', task_key(id), 'lost')
return 'Written'
