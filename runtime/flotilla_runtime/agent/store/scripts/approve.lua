-- Somebody decides on a call that waits for approval. The first decision stands; whoever comes second is told of it.
local id, call, decision = ARGV[2], ARGV[3], cjson.decode(ARGV[4])
local status = redis.call('HGET', task_key(id), 'status')
if not status then return {'Unknown'} end
local waits = redis.call('HGET', asked_key(id), call)
if waits and cjson.decode(waits).kind == 'Approve' and LIVE[status] then
  local before = came_for(id, call, cjson.decode(waits), {})
  if before then return before end
  decision.at = now
  redis.call('HSET', decided_key(id), call, cjson.encode(decision))
  if status == 'Suspended' then resume(id, 0) else note_approvals(id) end
end
local decided = redis.call('HGET', decided_key(id), call)
return decided and {'Decided', decided} or {'NotAsked'}
