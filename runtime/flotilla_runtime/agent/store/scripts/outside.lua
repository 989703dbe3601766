-- What people and programs outside give to a task: decisions on its approvals, and signals. The calls that wait for them
-- are in a hash, each with its kind, until when, and the name of the signal. A decision is kept as long as the task, and
-- the first one stands; that nobody decided in time is one too. A signal is kept until a call has taken it.
local SIGNAL_BYTES = 100 -- what Redis needs for a signal besides its value

local function has_open_approval(id)
  local flat = redis.call('HGETALL', asked_key(id))
  for place = 1, #flat, 2 do
    local waits = cjson.decode(flat[place + 1])
    local is_open = waits.kind == 'Approve' and now < waits['until']
    if is_open and redis.call('HEXISTS', decided_key(id), flat[place]) == 0 then return true end
  end
  return false
end

-- Whoever may decide finds a live task as long as there is something to decide.
function note_approvals(id)
  if has_open_approval(id) then
    redis.call('ZADD', approvals_key, '0', id)
  else
    redis.call('ZREM', approvals_key, id)
  end
end

local function wait_outside(id, call, waits)
  redis.call('HSET', asked_key(id), call, cjson.encode(waits))
  if waits.kind == 'Approve' then note_approvals(id) end
end

local function take_signal(id, name)
  local kept = redis.call('HGET', signals_key(id), name)
  if not kept then return end
  redis.call('HDEL', signals_key(id), name)
  store(id, 'bytes', -(#kept + SIGNAL_BYTES))
end

local WAITS_OUTSIDE = {Approve = true, ApproveAgain = true, Signal = true}
local function end_wait_outside(id, call, signal)
  redis.call('HDEL', asked_key(id), call)
  note_approvals(id)
  if signal then take_signal(id, signal) end
end

-- The signals of a task in the order in which they came, each with the name under which it is kept.
local function kept_signals(id)
  local flat, kept = redis.call('HGETALL', signals_key(id)), {}
  for place = 1, #flat, 2 do
    local signal = cjson.decode(flat[place + 1])
    signal.kept_as = flat[place]
    kept[#kept + 1] = signal
  end
  table.sort(kept, function(one, other) return one.number < other.number end)
  return kept
end

-- What came for a call, or nil: {'Decided', decision}, {'Signalled', the signal, its value}, or {'Late'}.
local function came_for(id, call, waits, taken)
  local is_over = now >= waits['until']
  if waits.kind == 'Approve' then
    local decided = redis.call('HGET', decided_key(id), call)
    if not decided and is_over then
      decided = cjson.encode({late = true, at = waits['until']})
      redis.call('HSET', decided_key(id), call, decided)
      note_approvals(id)
    end
    return decided and {'Decided', decided}
  end
  for _, signal in ipairs(kept_signals(id)) do
    if signal.name == waits.name and not taken[signal.kept_as] then
      return {'Signalled', signal.kept_as, signal.value}
    end
  end
  return is_over and {'Late'} or nil
end

local function has_come(id)
  local flat = redis.call('HGETALL', asked_key(id))
  for place = 1, #flat, 2 do
    if came_for(id, flat[place], cjson.decode(flat[place + 1]), {}) then return true end
  end
  return false
end
