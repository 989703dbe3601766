-- Takes requests and tokens from a bucket of the whole fleet, which holds a minute's worth of both. Each take counts at
-- once, so the bucket may owe: what is owed comes back before the next call has its turn, in the order of the takes. One
-- that would wait longer than ARGV[7] milliseconds takes nothing; with -1 it takes in any case, and less than nothing is
-- given back. A rate of 0 is no limit. A bucket that is lost is a full one, so it is not written to the append-only file.
redis.set_repl(redis.REPL_NONE)
local MINUTE_MS = 60000
local key, most_wait = ARGV[2], tonumber(ARGV[7])
local rates = {requests = tonumber(ARGV[3]), tokens = tonumber(ARGV[4])}
local wanted = {requests = tonumber(ARGV[5]), tokens = tonumber(ARGV[6])}
local held = redis.call('HMGET', key, 'at', 'requests', 'tokens')
local before = {requests = tonumber(held[2]), tokens = tonumber(held[3])}
local passed = math.max(0, now - tonumber(held[1] or now))

local wait, full, left = 0, 0, {}
for _, what in ipairs({'requests', 'tokens'}) do
  local rate = rates[what]
  if rate > 0 then
    local level = math.min(rate, (before[what] or rate) + passed * rate / MINUTE_MS)
    left[what] = math.min(rate, level - wanted[what])
    if wanted[what] > 0 and left[what] < 0 then wait = math.max(wait, math.ceil(-left[what] * MINUTE_MS / rate)) end
    full = math.max(full, math.ceil((rate - left[what]) * MINUTE_MS / rate))
  end
end
if most_wait >= 0 and wait > most_wait then return {0, wait, now} end
for what, level in pairs(left) do redis.call('HSET', key, what, string.format('%.6f', level)) end
redis.call('HSET', key, 'at', text(math.max(now, tonumber(held[1] or now))))
redis.call('PEXPIRE', key, full + MINUTE_MS)
return {1, wait, now}
