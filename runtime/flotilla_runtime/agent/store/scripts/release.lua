-- Hands a task over: it waits before the queue, this attempt goes on, and the token is invalid. A task whose journal has
-- words that this worker does not know waits for a worker that `needs` says.
local id, token, worker, needs = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local task = task_key(id)
local held = redis.call('HMGET', task, 'token', 'status', 'lost')
if held[1] == token and held[2] == 'Waiting' and not held[3] then return 'Written' end
if not owned(id, token) then return 'Stale' end
leave_worker(id)
append(id, {type = 'HandedOver', worker = string.match(worker, '^[^#]*')})
move(id, 'Waiting')
if needs ~= '' then
  join_line(newer_key, id, needs)
else
  join_line(redis.call('HEXISTS', task, 'company') == 1 and apart_key or first_key, id)
end
return 'Written'
