-- The object store has nothing more of a task that is to be deleted, unless the task was forgotten in the meantime.
local id, was_there = ARGV[2], ARGV[3] == 'true'
if (redis.call('EXISTS', task_key(id)) == 1) == was_there then redis.call('SREM', drops_key, id) end
