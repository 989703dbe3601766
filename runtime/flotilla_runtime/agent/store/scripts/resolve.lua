-- Somebody says whether an Unsafe call happened. Only a task that waits for that call hears it, and goes on.
local id, call, happened, entry = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local about, payload, share = cjson.decode(ARGV[6]), ARGV[7], ARGV[8]
local task = task_key(id)
local held = redis.call('HMGET', task, 'status', 'waitsFor', 'waitsCall', 'resolved', 'caller')
if not held[1] then return 'Unknown' end
if held[1] ~= 'Suspended' or held[2] ~= 'Effect' or held[3] ~= call then
  return held[4] == happened .. ' ' .. call and 'Resolved' or 'NothingUnknown'
end
local bytes = #entry + payload_bytes(id, about.payload, payload)
if bytes > LARGE and is_beyond_share(held[5], bytes, share) then return 'NoRoom' end
redis.call('HSET', task, 'resolved', happened .. ' ' .. call)
keep_payload(id, about.payload, payload, held[5])
note_elsewhere(id, about.elsewhere)
push(id, {(string.gsub(entry, '^({"type":"%a+","at":)0', '%1' .. text(now)))}, held[5])
resume(id, 0)
return 'Resolved'
