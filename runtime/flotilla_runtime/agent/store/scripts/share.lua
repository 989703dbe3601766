-- The share of a worker in what waits.
local TAKES_FOR_MS = 3000
local PASSED_ON_EVERY_MS = 200

-- The tasks that wait for a worker of these revisions and this format. Those that an earlier version put into the queue are not in the
-- counts.
local function waiting_for_me()
  local newer = 0
  for _, own in ipairs(asked.revisions) do
    newer = newer + redis.call('ZCOUNT', newer_key(own), '(' .. text(asked.format), '+inf')
  end
  local counted, mine = 0, 0
  local flat = redis.call('HGETALL', counts_key)
  for place = 1, #flat, 2 do
    local revision = string.match(flat[place], '^Waiting:(.*)$')
    if revision then counted = counted + tonumber(flat[place + 1]) end
    for _, own in ipairs(asked.revisions) do
      if own == revision then mine = mine + tonumber(flat[place + 1]) end
    end
  end
  return mine - newer + math.max(0, waiting() - counted)
end

-- Those of them that have begun, and those that admission lets begin.
local function open_to_me()
  local begun, admitted, mine = 0, admitted_now(), waiting_for_me()
  if admitted == UNLIMITED then return mine end
  for _, own in ipairs(asked.revisions) do
    begun = begun + redis.call('ZCARD', first_key(own)) + redis.call('ZCARD', apart_key(own))
  end
  return math.min(mine, begun + admitted)
end

-- What this worker takes of what waits: so much that all workers that take such tasks have the same. A call that woke
-- a worker which has its share goes on to the next one, but not round and round.
local function share()
  local takers = takers_key(asked.revisions[1])
  redis.call('ZADD', takers, text(now + TAKES_FOR_MS), asked.worker)
  redis.call('ZREMRANGEBYSCORE', takers, '-inf', text(now))
  local all, open = redis.call('ZRANGE', takers, 0, -1), open_to_me()
  local sum = open
  for _, taker in ipairs(all) do sum = sum + redis.call('SCARD', held_key(taker)) end
  local more = math.ceil(sum / #all) - held_now()
  if more <= 0 and #all > 1 and open > 0 and redis.call('SET', prefix .. 'passed-on:' .. asked.worker, '1', 'NX', 'PX',
    PASSED_ON_EVERY_MS) then
    call_worker(asked.revisions[1])
  end
  return more
end
