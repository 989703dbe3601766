-- Removes everything about tasks whose results have expired, a bounded number at a time.
local ttl_ms, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local ended = prefix .. 'ended'
local ids = redis.call('ZRANGEBYSCORE', ended, '-inf', text(now_ms() - ttl_ms), 'LIMIT', 0, limit)
for _, id in ipairs(ids) do
  local held = redis.call('HMGET', task_key(id), 'caller', 'idempotencyEntry')
  if held[2] then redis.call('DEL', held[2]) end
  if held[1] then redis.call('ZREM', prefix .. 'tasks-of:' .. held[1], id) end
  redis.call('DEL', task_key(id), journal_key(id))
  redis.call('ZREM', prefix .. 'tasks', id)
  redis.call('ZREM', ended, id)
end
return #ids
