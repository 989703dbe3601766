-- The queue. Each caller has a queue of its own for each priority and revision. Tenants take turns, and in a tenant's
-- turn its callers do. So nobody waits behind all the tasks of somebody else. Whoever had a turn goes to the end of its
-- line. Each line is a sorted set, by numbers that only grow, and holds only those for whom something waits.
local AHEAD = 2 ^ 50
local MOST_CALLS = 64
local CALLS_KEPT_SECONDS = 3600

local function waiting_key(priority) return prefix .. 'waiting:' .. priority end

-- Tasks without a revision wait in the lines that workers without revisions know.
local function line_of(priority, revision)
  if revision == '' then return priority end
  return priority .. '@' .. revision
end
local function tenants_key(line) return prefix .. 'line:' .. line end
local function callers_key(line, tenant) return prefix .. 'line:' .. line .. ':' .. tenant end
local function own_key(line, tenant, caller) return prefix .. 'waiting:' .. line .. ':' .. tenant .. ':' .. caller end
-- Tasks that go before the queue: handed over, or lost with a worker. The latter are in a line apart. Tasks whose journal
-- has words of a newer version are in another, by the format that a worker must know.
local function first_key(revision) return prefix .. 'first:' .. revision end
local function apart_key(revision) return prefix .. 'apart:' .. revision end
local function newer_key(revision) return prefix .. 'newer:' .. revision end
local function calls_key(revision)
  if revision == '' then return prefix .. 'calls' end
  return prefix .. 'calls@' .. revision
end

-- Workers of version 0.1.0 know only one stream for each priority. Until a newer worker has said that it knows the lines,
-- tasks wait there, because an upgrade may replace the gateways long before the workers.
local lines_known_key = prefix .. 'lines-known'
local function stream_key(priority) return prefix .. 'queue:' .. priority end

local PRIORITIES = {'Interactive', 'Batch'}

local function next_number() return redis.call('INCR', prefix .. 'turns') end

local function waiting()
  local sum = 0
  for _, priority in ipairs(PRIORITIES) do
    sum = sum + redis.call('ZCARD', waiting_key(priority)) + redis.call('XLEN', stream_key(priority))
  end
  return sum
end

-- One idle worker wakes for each task. A call that nobody needed wakes a worker for nothing, so few are kept.
local function call_worker(revision)
  local calls = calls_key(revision)
  if redis.call('LLEN', calls) < MOST_CALLS then redis.call('RPUSH', calls, '1') end
  redis.call('EXPIRE', calls, CALLS_KEPT_SECONDS)
end

local function place_of(id)
  local held = redis.call('HMGET', task_key(id), 'priority', 'revision', 'tenant', 'caller')
  return {priority = held[1], revision = held[2] or '', tenant = held[3] or held[4], caller = held[4]}
end

-- A task that has run already goes ahead of the others of its caller.
local function join_queue(id, ahead)
  local place = place_of(id)
  local line = line_of(place.priority, place.revision)
  local number = next_number()
  if ahead then number = number - AHEAD end
  redis.call('ZADD', own_key(line, place.tenant, place.caller), text(number), id)
  redis.call('ZADD', callers_key(line, place.tenant), 'NX', text(next_number()), place.caller)
  redis.call('ZADD', tenants_key(line), 'NX', text(next_number()), place.tenant)
  redis.call('ZADD', waiting_key(place.priority), text(now), id)
  call_worker(place.revision)
end

local function join_line(key, id, number)
  local place = place_of(id)
  redis.call('ZADD', key(place.revision), number or text(next_number()), id)
  redis.call('ZADD', waiting_key(place.priority), text(now), id)
  call_worker(place.revision)
end

local function leave_lines(line, tenant, caller)
  if redis.call('EXISTS', own_key(line, tenant, caller)) == 1 then return end
  redis.call('ZREM', callers_key(line, tenant), caller)
  if redis.call('EXISTS', callers_key(line, tenant)) == 1 then return end
  redis.call('ZREM', tenants_key(line), tenant)
end

-- Takes a waiting task out of whatever line it is in.
local function leave_queue(id)
  local place = place_of(id)
  local entry = redis.call('HGET', task_key(id), 'entry')
  if entry then redis.call('XDEL', stream_key(place.priority), entry) end
  local line = line_of(place.priority, place.revision)
  redis.call('ZREM', waiting_key(place.priority), id)
  redis.call('ZREM', first_key(place.revision), id)
  redis.call('ZREM', apart_key(place.revision), id)
  redis.call('ZREM', newer_key(place.revision), id)
  redis.call('ZREM', own_key(line, place.tenant, place.caller), id)
  leave_lines(line, place.tenant, place.caller)
end

-- The next task of a line; it stays there.
local function head(line)
  local tenant = redis.call('ZRANGE', tenants_key(line), 0, 0)[1]
  local caller = redis.call('ZRANGE', callers_key(line, tenant), 0, 0)[1]
  return redis.call('ZRANGE', own_key(line, tenant, caller), 0, 0)[1], tenant, caller
end

-- Takes the next task of a priority off the queue: of these revisions, the one whose tenant has waited longest for its
-- turn.
local function take(priority, revisions)
  local first, best = nil, nil
  for _, revision in ipairs(revisions) do
    local line = line_of(priority, revision)
    local tenant = redis.call('ZRANGE', tenants_key(line), 0, 0, 'WITHSCORES')
    if tenant[1] and (not best or tonumber(tenant[2]) < best) then first, best = line, tonumber(tenant[2]) end
  end
  if not first then return nil end
  local id, tenant, caller = head(first)
  redis.call('ZREM', waiting_key(priority), id)
  redis.call('ZREM', own_key(first, tenant, caller), id)
  leave_lines(first, tenant, caller)
  redis.call('ZADD', callers_key(first, tenant), 'XX', text(next_number()), caller)
  redis.call('ZADD', tenants_key(first), 'XX', text(next_number()), tenant)
  return id
end
