-- Put in front of every script of this folder. ARGV[1] is the prefix of the keys of the executors' queue; an executor's user
-- of Redis may use no other. KEYS[1] is one of them, from which a Redis Cluster finds the shard. Times are by Redis' clock.
local prefix = ARGV[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local KEPT_MS = 60000 -- a request at which nobody looks, and a reply that was read
local UNREAD_MS = 600000 -- a reply that was not
local MOST_NEWS = 10000
local AT_ONCE = 200
-- Executors may write these keys and call these scripts as they like, so nothing here goes on for long.
local MOST_ARGUMENTS = 2500 -- a worker looks at 200 requests at once, and an executor renews the two arguments of each of 1000
local MOST_REVISIONS = 200
if #ARGV > MOST_ARGUMENTS then error('too many arguments') end

local function text(number) return string.format('%.0f', number) end
local function request_key(id) return prefix .. 'request:' .. id end
local function waiting_key(revision) return prefix .. 'waiting@' .. revision end
local function running_key(revision) return prefix .. 'running@' .. revision end
local function calls_key(revision) return prefix .. 'calls@' .. revision end
local function inbox_key(process) return prefix .. 'inbox:' .. process end
local queues_key = prefix .. 'queues'

local function tell(process, id)
  if not process or process == '' then return end
  redis.call('RPUSH', inbox_key(process), id)
  redis.call('LTRIM', inbox_key(process), -MOST_NEWS, -1)
  redis.call('PEXPIRE', inbox_key(process), KEPT_MS)
end

-- Puts a request into the queue, if it is not there, and wakes one executor for it.
local function enqueue(id, revision, since)
  if redis.call('ZADD', waiting_key(revision), 'NX', since, id) == 1 then
    redis.call('RPUSH', calls_key(revision), id)
    redis.call('ZADD', queues_key, text(now), revision)
  end
end

-- A request whose executor was lost waits again, unless that may repeat what happened, or would lose more executors.
local function lose(id)
  local key = request_key(id)
  local held = redis.call('HMGET', key, 'effect', 'waiter', 'revision', 'since', 'most')
  if not held[1] then return end
  local lost = redis.call('HINCRBY', key, 'lost', 1)
  if held[1] == 'Unsafe' or lost > tonumber(held[5]) then
    redis.call('HSET', key, 'state', 'Lost')
    redis.call('HDEL', key, 'token')
    redis.call('PEXPIRE', key, UNREAD_MS)
    tell(held[2], id)
  else
    redis.call('HSET', key, 'state', 'Waiting')
    redis.call('HDEL', key, 'token', 'executor')
    enqueue(id, held[3], held[4])
  end
end

-- Ends leases: so many in a whole script, however many revisions it names. The others end with the next one.
local may_end = AT_ONCE
local function sweep(revision)
  if may_end == 0 then return end
  local ended = redis.call('ZRANGEBYSCORE', running_key(revision), '-inf', text(now), 'LIMIT', 0, may_end)
  may_end = may_end - #ended
  for _, id in ipairs(ended) do
    redis.call('ZREM', running_key(revision), id)
    if redis.call('HGET', request_key(id), 'state') == 'Running' then lose(id) end
  end
end

-- A request that waits goes to the executors of this revision. Those of an older one may never come again.
local function move(id, revision)
  local key = request_key(id)
  local held = redis.call('HMGET', key, 'state', 'revision')
  if held[1] ~= 'Waiting' or not held[2] or held[2] == revision then return end
  redis.call('ZREM', waiting_key(held[2]), id)
  redis.call('HSET', key, 'revision', revision)
end

-- Takes a request back, if no executor has begun it.
local function take_back(id)
  local held = redis.call('HMGET', request_key(id), 'state', 'revision')
  if held[1] ~= 'Waiting' then return false end
  redis.call('ZREM', waiting_key(held[2] or ''), id)
  redis.call('DEL', request_key(id))
  return true
end

-- What a worker is told of a request. One that waits for it keeps it alive. A reply that no tool may have is not read.
local MOST_REPLY_BYTES = 33554432
local function seen(id)
  local key = request_key(id)
  if redis.call('HSTRLEN', key, 'reply') > MOST_REPLY_BYTES then redis.call('HSET', key, 'reply', 'too long') end
  local held = redis.call('HMGET', key, 'state', 'reply', 'executor', 'revision', 'since')
  if not held[1] then return {'Gone', '', ''} end
  if held[1] == 'Waiting' then enqueue(id, held[4], held[5]) end
  if held[1] ~= 'Running' or redis.call('PTTL', key) < KEPT_MS then redis.call('PEXPIRE', key, KEPT_MS) end
  return {held[1], held[2] or '', held[3] or ''}
end
