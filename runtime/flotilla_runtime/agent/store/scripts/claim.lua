-- The only way to get a task, for its first run and for every later one. Tasks that were handed over or lost come first.
-- Then interactive tasks go before batch tasks, except that each tenth grant from the queue goes to batch first, so that
-- batch tasks never starve. The new token makes the writes of every earlier holder stale. It grows by a number that the
-- worker has drawn, so a token that a failover of Redis has lost is not granted again.
-- A request that is sent again, because its answer was lost, gets the same tasks, except those that others hold now.
local worker, lease_ms, wanted, request, step = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local max_attempts, format = tonumber(ARGV[7]), tonumber(ARGV[8])
local revisions = {unpack(ARGV, 9)}
local ANSWER_KEPT_MS = 600000
local BATCH_FIRST_EVERY = 10
local AT_ONCE = 256
local TAKES_FOR_MS = 3000
local PATIENCE = 0.4
local PASSED_ON_EVERY_MS = 200
local WORKER_KEPT_MS = 600000
local answer = prefix .. 'granted:' .. request
local granted = {}

local known = redis.call('GET', answer)
if known then
  for _, grant in ipairs(cjson.decode(known)) do
    local held = owned(grant[1], grant[2])
    if held then
      extend_lease(grant[1], lease_ms, held.worker)
      granted[#granted + 1] = grant
    end
  end
  if #granted > 0 then return granted end
  redis.call('DEL', answer) -- others have all of them: the request asks anew
end

local function grant(id)
  local task = task_key(id)
  if redis.call('EXISTS', task) == 0 then return end
  if not redis.call('HGET', task, 'revision') then adopt(id) end
  local token = text(redis.call('HINCRBY', task, 'token', step))
  local held = redis.call('HMGET', task, 'attempts', 'resumedAt')
  local attempt = math.max(1, tonumber(held[1]))
  if held[2] then redis.call('HINCRBY', task, 'suspendedMs', text(math.max(0, now - tonumber(held[2])))) end
  redis.call('HSET', task, 'worker', worker, 'attempts', text(attempt))
  redis.call('HSETNX', task, 'startedAt', text(now))
  redis.call('HDEL', task, 'entry', 'lost', 'resumedAt', 'write', 'refused')
  move(id, 'Running')
  append(id, {type = 'Claimed', worker = string.match(worker, '^[^#]*'), attempt = attempt})
  redis.call('SADD', held_key(worker), id)
  extend_lease(id, lease_ms, worker)
  granted[#granted + 1] = {id, token}
end

local function held_now() return redis.call('SCARD', held_key(worker)) end

-- The tasks that wait for a worker of these revisions. Those that an earlier version put into the queue are not in the
-- counts.
local function waiting_for_me()
  local counted, mine = 0, 0
  local flat = redis.call('HGETALL', counts_key)
  for place = 1, #flat, 2 do
    local revision = string.match(flat[place], '^Waiting:(.*)$')
    if revision then counted = counted + tonumber(flat[place + 1]) end
    for _, own in ipairs(revisions) do
      if own == revision then mine = mine + tonumber(flat[place + 1]) end
    end
  end
  return mine + math.max(0, waiting() - counted)
end

-- What this worker takes of what waits: so much that all workers that take such tasks have the same. A call that woke
-- a worker which has its share goes on to the next one, but not round and round.
local function share()
  local takers = takers_key(revisions[1])
  redis.call('ZADD', takers, text(now + TAKES_FOR_MS), worker)
  redis.call('ZREMRANGEBYSCORE', takers, '-inf', text(now))
  local all, sum = redis.call('ZRANGE', takers, 0, -1), waiting_for_me()
  for _, taker in ipairs(all) do sum = sum + redis.call('SCARD', held_key(taker)) end
  local more = math.ceil(sum / #all) - held_now()
  if more <= 0 and #all > 1 and waiting() > 0 and redis.call('SET', prefix .. 'passed-on:' .. worker, '1', 'NX', 'PX',
    PASSED_ON_EVERY_MS) then
    call_worker(revisions[1])
  end
  return more
end

-- The most suspects that may be together on this worker, and how many there are.
local function company()
  local most, suspects = nil, 0
  for _, id in ipairs(redis.call('SMEMBERS', held_key(worker))) do
    local allowed = tonumber(redis.call('HGET', task_key(id), 'company') or nil)
    if allowed then
      suspects = suspects + 1
      most = math.min(most or allowed, allowed)
    end
  end
  return most, suspects
end

local most, suspects = nil, 0

local function waited_ms(id)
  local priority = redis.call('HGET', task_key(id), 'priority')
  return now - tonumber(redis.call('ZSCORE', waiting_key(priority), id) or now)
end

-- A suspect that is to be the only one goes to a worker without tasks, and after a while to any. If it is lost there
-- too, it must be alone.
local function may_join(id)
  local held = redis.call('HMGET', task_key(id), 'company', 'needs', 'needsUntil', 'strict')
  if held[2] and tonumber(held[2]) > format and now < tonumber(held[3]) then return false end
  local allowed = tonumber(held[1] or nil)
  if not allowed then return true end
  if allowed == 1 and held_now() > 0 and (held[4] or waited_ms(id) < PATIENCE * lease_ms) then return false end
  local together = math.min(most or allowed, allowed)
  if suspects + 1 > together then return false end
  most, suspects = together, suspects + 1
  return true
end

-- A suspect that must be alone has waited in vain for a worker without tasks. One worker takes no more until it has none.
local function must_empty(id)
  if redis.call('HEXISTS', task_key(id), 'strict') == 0 or held_now() == 0 or waited_ms(id) < lease_ms then
    return false
  end
  local emptying = prefix .. 'emptying'
  local chosen = redis.call('GET', emptying)
  if chosen and chosen ~= worker then return false end
  redis.call('SET', emptying, worker, 'PX', 2 * lease_ms)
  return true
end

-- A suspect that is the only one, and the only task of this worker, stays so until it has got further.
local function is_alone() return most == 1 and held_now() == 1 end

local function take_apart(revision, room)
  for _, id in ipairs(redis.call('ZRANGE', apart_key(revision), 0, AT_ONCE - 1)) do
    if #granted >= room then return false end
    if may_join(id) then
      leave_queue(id)
      grant(id)
      if is_alone() then return true end
    elseif must_empty(id) then
      return true
    end
  end
  return false
end

local function take_first(revision, room)
  for _, id in ipairs(redis.call('ZRANGE', first_key(revision), 0, room - #granted - 1)) do
    leave_queue(id)
    grant(id)
  end
end

-- Tasks that wait where workers of version 0.1.0 find them.
local function take_streams(room)
  for _, priority in ipairs(PRIORITIES) do
    local stream = stream_key(priority)
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', AT_ONCE)) do
      if #granted >= room then return end
      local revision = redis.call('HGET', task_key(entry[2][2]), 'revision') or ''
      for _, mine in ipairs(revisions) do
        if mine == revision then
          redis.call('XDEL', stream, entry[1])
          grant(entry[2][2])
          break
        end
      end
    end
  end
end

local function take_queue(room)
  while #granted < room do
    local taken = tonumber(redis.call('GET', prefix .. 'taken') or '0') + 1
    local first, second = 'Interactive', 'Batch'
    if taken % BATCH_FIRST_EVERY == 0 then first, second = second, first end
    local id = take(first, revisions) or take(second, revisions)
    if not id then return end
    redis.call('SET', prefix .. 'taken', text(taken))
    grant(id)
  end
end

local function take_all(room)
  for _, revision in ipairs(revisions) do
    if take_apart(revision, room) then return end
    if #granted < room then take_first(revision, room) end
  end
  take_streams(room)
  take_queue(room)
end

redis.call('DEL', prefix .. 'nothing') -- a script that has removed something may go on in a full Redis
sweep(AT_ONCE, lease_ms, max_attempts)
wake_due(AT_ONCE)
redis.call('SET', lines_known_key, '1')
redis.call('ZADD', workers_key, text(now + lease_ms), worker)
redis.call('ZREMRANGEBYSCORE', workers_key, '-inf', text(now - WORKER_KEPT_MS))
redis.call('HDEL', lost_key, worker)
most, suspects = company()
local room = math.min(wanted, share())
if room > 0 and not is_alone() then take_all(room) end
if #granted > 0 then redis.call('SET', answer, cjson.encode(granted), 'PX', ANSWER_KEPT_MS) end
if waiting() == 0 then
  for _, revision in ipairs(revisions) do redis.call('DEL', calls_key(revision)) end
end
return granted
