-- Gives a task a signal, which it takes when it awaits one of that name. A signal that is sent again, because the answer
-- was lost, is known by its request.
local id, request, name, value = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local most_kept, most_bytes, quota = tonumber(ARGV[6]), tonumber(ARGV[7]), cjson.decode(ARGV[8])
local REQUEST_KEPT_MS = 600000
local held = redis.call('HMGET', task_key(id), 'status', 'caller')
local status, caller = held[1], held[2]
if not status then return 'Unknown' end
local known = prefix .. 'signalled:' .. request
if redis.call('EXISTS', known) == 1 then return 'Kept' end
if not LIVE[status] then return 'Ended' end

local bytes, last = #value, 0
for _, signal in ipairs(kept_signals(id)) do bytes, last = bytes + #signal.value, signal.number end
if redis.call('HLEN', signals_key(id)) >= most_kept or bytes > most_bytes then return 'TooMany' end
local kept = cjson.encode({number = last + 1, name = name, value = value})
local is_full = beyond_quota(caller, #kept + SIGNAL_BYTES, quota)
if is_full then return is_full end

redis.call('HSET', signals_key(id), request, kept)
store(id, 'bytes', #kept + SIGNAL_BYTES, caller)
redis.call('SET', known, '1', 'PX', REQUEST_KEPT_MS)
if status == 'Suspended' and has_come(id) then resume(id, 0) end
return 'Kept'
