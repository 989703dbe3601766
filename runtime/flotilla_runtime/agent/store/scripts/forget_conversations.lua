-- Removes conversations whose last task ended a while ago, a bounded number at a time.
local ttl_ms, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local old = redis.call('ZRANGEBYSCORE', conversations_key, '-inf', text(now - ttl_ms), 'LIMIT', 0, limit)
for _, name in ipairs(old) do
  while redis.call('LLEN', turns_key(name)) > 0 do drop_turn(name) end
  redis.call('DEL', conversation_key(name))
  drop_checkpoints(space_of_conversation(name))
  redis.call('ZREM', conversations_key, name)
end
return #old
