-- Ends a task for the worker that holds it. A repeated call changes nothing.
local id, token, status, reason, message = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local fields, figures = cjson.decode(ARGV[7]), cjson.decode(ARGV[8])
if not owns(id, token) then
  local held = redis.call('HMGET', task_key(id), 'token', 'reason')
  if held[1] == token and held[2] == reason then return 'Written' end
  return 'Stale'
end
for field, value in pairs(fields) do redis.call('HSET', task_key(id), field, value) end
end_task(id, status, reason, message, figures)
return 'Written'
