-- A task waits, runs, is suspended, and ends. Every change of its status is made here, so the counts are right.
local note_approvals -- outside.lua has it
local LIVE = {Waiting = true, Running = true, Suspended = true}

local function move(id, status)
  local held = redis.call('HMGET', task_key(id), 'status', 'revision', 'caller')
  local before, revision, caller = held[1], held[2], held[3]
  redis.call('HSET', task_key(id), 'status', status)
  if not revision then return end -- a task of version 0.1.0 is counted from its adoption on
  if LIVE[before] then count(counts_key, before .. ':' .. revision, -1) end
  if LIVE[status] then count(counts_key, status .. ':' .. revision, 1) end
  if before == 'Waiting' then count(places_key, caller, -1) end
  if status == 'Waiting' then count(places_key, caller, 1) end
end

local function extend_lease(id, lease_ms, worker)
  redis.call('ZADD', leases_key, text(now + lease_ms), id)
  redis.call('ZADD', workers_key, text(now + lease_ms), worker)
end

local function leave_worker(id)
  local worker = redis.call('HGET', task_key(id), 'worker')
  count_calls(id, ended_calling)
  redis.call('ZREM', leases_key, id)
  redis.call('ZREM', old_leases_key, id)
  if not worker then return end
  redis.call('SREM', held_key(worker), id)
  call_for_free_place(id)
  if redis.call('EXISTS', held_key(worker)) == 0 then redis.call('HDEL', lost_key, worker) end
end

-- A worker that was taken for lost writes again: so the task did not kill it. What nobody else has taken is its again.
local function take_back(id, worker, lost)
  redis.call('HDEL', lost_key, worker)
  redis.call('HDEL', task_key(id), 'lost', 'company', 'strict')
  local company, strict, alone = string.match(lost, '^(%d*) (%d) (%d)$')
  if company ~= '' then redis.call('HSET', task_key(id), 'company', company) end
  if strict == '1' then redis.call('HSET', task_key(id), 'strict', '1') end
  if alone == '1' then redis.call('HINCRBY', task_key(id), 'attempts', -1) end
  redis.call('HINCRBY', task_key(id), 'losses', -1)
  leave_queue(id)
  move(id, 'Running')
  redis.call('SADD', held_key(worker), id)
  count_calls(id, began_calling)
end

-- The fence: only the worker with the newest token of a running task may write to it. Returns what the scripts of a worker
-- need of the task, or nil.
local function owned(id, token)
  local told = redis.call('HMGET', task_key(id), 'token', 'status', 'lost', 'worker', 'caller', 'root', 'write', 'refused',
    'cancelRequested')
  if told[1] ~= token then return nil end
  if told[2] == 'Waiting' and told[3] then
    take_back(id, told[4], told[3])
  elseif told[2] ~= 'Running' then
    return nil
  end
  return {worker = told[4], caller = told[5], root = told[6], write = told[7], refused = told[8],
    cancel_requested = told[9] and 1 or 0}
end

-- How long a task has run, without the time from a suspension to the next claim.
local function elapsed_ms(id)
  local held = redis.call('HMGET', task_key(id), 'startedAt', 'suspendedMs', 'suspendedAt', 'resumedAt')
  if not held[1] then return 0 end
  return math.max(0, tonumber(held[3] or held[4] or now) - tonumber(held[1]) - tonumber(held[2] or '0'))
end

-- Puts a suspended task back into the queue. Time in which a spawned task ran for it counts as its own.
local function resume(id, ran_ms)
  local held = redis.call('HMGET', task_key(id), 'suspendedAt', 'waitsFor')
  local idle = math.max(0, now - tonumber(held[1]) - ran_ms)
  redis.call('HINCRBY', task_key(id), 'suspendedMs', text(idle))
  if ran_ms > 0 then redis.call('HINCRBY', task_key(id), 'awayMs', text(ran_ms)) end
  redis.call('HSET', task_key(id), 'resumedAt', text(now))
  redis.call('HDEL', task_key(id), 'suspendedAt', 'waitsFor', 'waitsCall', 'waitsUntil', 'waitsChildren')
  for _, key in ipairs({timers_key, unknown_key, suspended_key}) do redis.call('ZREM', key, id) end
  note_approvals(id)
  append(id, {type = 'Resumed', waits_for = held[2]})
  move(id, 'Waiting')
  join_queue(id, true)
end

local function wake_due(limit)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', timers_key, '-inf', text(now), 'LIMIT', 0, limit)) do
    if redis.call('HGET', task_key(id), 'status') == 'Suspended' then
      resume(id, 0)
    else
      redis.call('ZREM', timers_key, id)
    end
  end
end

-- The task that spawned this one goes on, if it waits for it. One that makes its compensations only waits for the end of
-- what it cancelled, so that time does not count.
local function tell_parent(id, parent, ran_ms)
  redis.call('SREM', children_key(parent), id)
  local held = redis.call('HMGET', task_key(parent), 'status', 'waitsChildren', 'unwinds')
  if held[1] ~= 'Suspended' or not held[2] then return end
  for _, child in ipairs(cjson.decode(held[2])) do
    if child == id then return resume(parent, held[3] and 0 or ran_ms) end
  end
end

local function count_ended(id, how, ran_ms)
  local held = redis.call('HMGET', task_key(id), 'submittedAt', 'startedAt', 'losses', 'root', 'usedSteps',
    'usedTokens', 'usedNano', 'unpriced', 'awayMs')
  local amounts = {work = math.max(0, ran_ms - tonumber(held[9] or '0'))} -- on a worker
  for part, milliseconds in pairs(how.busy) do amounts['busy:' .. part] = milliseconds end
  for part, milliseconds in pairs(how.waited or {}) do amounts['slot-wait:' .. part] = milliseconds end
  for part, made in pairs(how.calls) do amounts['calls:' .. part] = made end
  if not held[4] or held[4] == id then -- a spawned task, or a message, is a part of the task that was submitted
    local submitted = tonumber(held[1])
    local waited = tonumber(held[2] or now) - submitted
    amounts['reason:' .. how.reason] = 1
    amounts['waited:' .. tick(waited)] = 1
    amounts['took:' .. tick(now - submitted)] = 1
    amounts['busy:Queue'] = waited
    amounts.recovered = tonumber(held[3] or '0') > 0 and 1 or 0
    amounts.steps, amounts.tokens = tonumber(held[5] or '0'), tonumber(held[6] or '0')
    amounts.nano, amounts.unpriced = tonumber(held[7] or '0'), tonumber(held[8] or '0')
  end
  count_in_window(amounts)
end

-- A task that has compensations, or handles a message of an actor, ends by its next run alone, once it has begun. One that
-- makes its compensations already `unwinds`.
local function must_run_to_end(id)
  local held = redis.call('HMGET', task_key(id), 'compensates', 'startedAt')
  return held[1] and held[2]
end

-- Every task that ends comes through here. The tasks that it spawned end with it.
local end_task
local function cancel_task(id, message)
  local held = redis.call('HMGET', task_key(id), 'status', 'unwinds')
  local status = held[1]
  if status == 'Running' or (LIVE[status] and must_run_to_end(id)) then
    redis.call('HSETNX', task_key(id), 'cancelRequested', text(now))
    if status == 'Suspended' and not held[2] then resume(id, 0) end
  elseif LIVE[status] then
    end_task(id, {status = 'Cancelled', reason = 'Cancelled', message = message, shown = {}, busy = {}, calls = {}})
  end
end

local function cancel_children(id)
  for _, child in ipairs(redis.call('SMEMBERS', children_key(id))) do
    cancel_task(child, 'the task that spawned it has come to its end')
  end
end

function end_task(id, how)
  local task = task_key(id)
  local held = redis.call('HMGET', task, 'status', 'parent', 'caller', 'conversation')
  local ran_ms = elapsed_ms(id)
  give_all_room(id, held[3])
  if held[1] == 'Waiting' then leave_queue(id) end
  leave_conversation(id, how.said)
  if not held[4] then drop_checkpoints(id) end
  leave_worker(id)
  settle_all(id)
  for _, key in ipairs({timers_key, unknown_key, approvals_key, suspended_key}) do redis.call('ZREM', key, id) end
  redis.call('HSET', task, 'reason', how.reason, 'message', how.message, 'endedAt', text(now))
  redis.call('HDEL', task, 'company', 'strict', 'lost', 'refused', 'waitsFor', 'waitsCall', 'waitsUntil', 'waitsChildren')
  for field, value in pairs(how.shown) do
    redis.call('HSET', task, field, value)
    store(id, 'bytes', #value)
  end
  append(id, {type = 'Ended', status = how.status, reason = how.reason, message = how.message})
  move(id, how.status)
  redis.call('ZADD', how.status == 'Failed' and dead_letters_key or prefix .. 'ended', text(now), id)
  if how.status ~= 'Failed' then redis.call('ZADD', prefix .. 'journals', text(now), id) end
  count_ended(id, how, ran_ms)
  if held[2] then tell_parent(id, held[2], ran_ms) end
  cancel_children(id)
  redis.call('DEL', children_key(id))
end
