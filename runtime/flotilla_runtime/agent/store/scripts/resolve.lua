-- Somebody says whether an Unsafe call happened. Only a task that waits for that call hears it, and goes on.
local id, call, happened, entry = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local task = task_key(id)
local held = redis.call('HMGET', task, 'status', 'waitsFor', 'waitsCall', 'resolved')
if not held[1] then return 'Unknown' end
if held[1] ~= 'Suspended' or held[2] ~= 'Effect' or held[3] ~= call then
  return held[4] == happened .. ' ' .. call and 'Resolved' or 'NothingUnknown'
end
redis.call('HSET', task, 'resolved', happened .. ' ' .. call)
push(id, {(string.gsub(entry, '^{"type":"Resolved","at":0', '{"type":"Resolved","at":' .. text(now)))})
resume(id, 0)
return 'Resolved'
