-- Writes a reply, once. With none the request waits for another executor.
local id, token, known, reply = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key = request_key(id)
local held = redis.call('HMGET', key, 'state', 'token', 'revision', 'since', 'waiter')
if not held[1] or held[2] ~= token then return 0 end
if held[1] ~= 'Running' then return 1 end
redis.call('ZREM', running_key(held[3]), id)
if reply == '' then
  redis.call('HSET', key, 'state', 'Waiting')
  redis.call('HDEL', key, 'token', 'executor')
  enqueue(id, held[3], held[4])
else
  redis.call('HSET', key, 'state', 'Answered', 'reply', reply, 'known', known)
  redis.call('PEXPIRE', key, UNREAD_MS)
  tell(held[5], id)
end
return 1
