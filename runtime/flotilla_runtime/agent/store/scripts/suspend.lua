-- The task gives its place up and waits: for spawned tasks, for a timer, or for somebody who knows of an effect, approves
-- or signals. Answers 'Come' if it need not wait, because one of the tasks has ended, the time has come, somebody has said
-- something, or the task is to be cancelled.
local id, token, write, expected = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local kind, call, until_ms, children = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local task = task_key(id)
local before = redis.call('HMGET', task, 'token', 'write')
if before[1] == token and before[2] == write then return 'Suspended' end
local held = owned(id, token)
if not held then return 'Stale' end
if redis.call('LLEN', journal_key(id)) ~= expected then return 'Conflict' end
if held.cancel_requested == 1 and redis.call('HEXISTS', task, 'unwinds') == 0 then return 'Come' end
if until_ms ~= '' and tonumber(until_ms) <= now then return 'Come' end
for _, child in ipairs(cjson.decode(children)) do
  if not LIVE[redis.call('HGET', task_key(child), 'status')] then return 'Come' end
end
if has_come(id) then return 'Come' end

leave_worker(id)
give_all_room(id, held.caller) -- it may wait for long, and others of its caller would wait for the room
local entry = {type = 'Suspended', waits_for = kind, call = call}
redis.call('HSET', task, 'waitsFor', kind, 'waitsCall', call, 'suspendedAt', text(now), 'write', write)
if until_ms ~= '' then
  entry['until'] = tonumber(until_ms)
  redis.call('HSET', task, 'waitsUntil', until_ms)
  redis.call('ZADD', timers_key, until_ms, id)
end
if children ~= '[]' then redis.call('HSET', task, 'waitsChildren', children) end
if kind == 'Effect' then redis.call('ZADD', unknown_key, text(now), id) end
note_approvals(id) -- a worker of before, which wrote the intent, has not
redis.call('ZADD', suspended_key, text(now), id)
append(id, entry)
move(id, 'Suspended')
return 'Suspended'
