-- Ends a task for the worker that holds it. A repeated call changes nothing.
local id, token, status, reason, message = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local shown, figures = cjson.decode(ARGV[7]), cjson.decode(ARGV[8])
if not owned(id, token) then
  local held = redis.call('HMGET', task_key(id), 'token', 'reason')
  return held[1] == token and held[2] == reason and 'Written' or 'Stale'
end
end_task(id, {status = status, reason = reason, message = message, shown = shown, busy = figures.busy,
  calls = figures.calls, said = figures.said})
return 'Written'
