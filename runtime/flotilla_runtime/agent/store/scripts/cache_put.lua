-- Keeps a result in the cache, for ARGV[4] milliseconds. All results together have at most ARGV[5] bytes: the oldest make
-- room. What is lost is a miss, so nothing of it is written to the append-only file.
redis.set_repl(redis.REPL_NONE)
local name, value, kept_ms, most = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local AT_ONCE = 100
local OVERHEAD_BYTES = 250 -- of a key with its places in order and sizes, about
local order, sizes, total = prefix .. 'cache-order', prefix .. 'cache-sizes', prefix .. 'cache-bytes'

local function drop(one)
  local size = tonumber(redis.call('HGET', sizes, one) or '0')
  redis.call('DEL', prefix .. 'cache:' .. one)
  redis.call('HDEL', sizes, one)
  redis.call('ZREM', order, one)
  redis.call('DECRBY', total, text(size))
end

drop(name)
for _, one in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', text(now), 'LIMIT', 0, AT_ONCE)) do drop(one) end
local size = #value + OVERHEAD_BYTES
if size > most then return 0 end
while tonumber(redis.call('GET', total) or '0') + size > most do
  local oldest = redis.call('ZRANGE', order, 0, 0)[1]
  if not oldest then
    redis.call('DEL', total, sizes)
    break
  end
  drop(oldest)
end
redis.call('SET', prefix .. 'cache:' .. name, value, 'PX', text(kept_ms))
redis.call('ZADD', order, text(now + kept_ms), name)
redis.call('HSET', sizes, name, text(size))
redis.call('INCRBY', total, text(size))
return 1
