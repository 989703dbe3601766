-- Ends a task for the worker that holds it. A repeated call changes nothing. A result for which the caller's share has no
-- room is refused; the worker then ends the task without it.
local id, token, status, reason, message = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local shown, figures, payloads, share = cjson.decode(ARGV[7]), cjson.decode(ARGV[8]), cjson.decode(ARGV[9]), ARGV[10]
local held = owned(id, token)
if not held then
  local before = redis.call('HMGET', task_key(id), 'token', 'reason')
  local is_ended = before[2] == reason or before[2] == 'Infrastructure'
  return before[1] == token and is_ended and 'Written' or 'Stale'
end
give_all_room(id, held.caller)
local bytes = figures.said and #figures.said or 0
for _, value in pairs(shown) do bytes = bytes + #value end
for hash, value in pairs(payloads) do bytes = bytes + payload_bytes(id, hash, value) end
if bytes > 0 and is_beyond_share(held.caller, bytes, share) then return 'NoRoom' end
for hash, value in pairs(payloads) do
  keep_payload(id, hash, value, held.caller)
  note_elsewhere(id, value == '')
end
end_task(id, {status = status, reason = reason, message = message, shown = shown, busy = figures.busy,
  calls = figures.calls, waited = figures.waited, said = figures.said})
return 'Written'
