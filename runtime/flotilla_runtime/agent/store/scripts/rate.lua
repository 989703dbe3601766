-- Takes one request of a caller's bucket, which is full after a minute without any. Answers 0, or after how many
-- milliseconds there is one again. A bucket that is lost is a full one, so it is not written to the append-only file.
redis.set_repl(redis.REPL_NONE)
local MINUTE_MS = 60000
local key, most = ARGV[2], tonumber(ARGV[3])
local held = redis.call('HMGET', key, 'left', 'at')
local passed = math.max(0, now - tonumber(held[2] or now))
local left = math.min(most, tonumber(held[1] or most) + passed * most / MINUTE_MS)
if left < 1 then return math.ceil((1 - left) * MINUTE_MS / most) end
redis.call('HSET', key, 'left', string.format('%.6f', left - 1), 'at', text(now))
redis.call('PEXPIRE', key, MINUTE_MS)
return 0
