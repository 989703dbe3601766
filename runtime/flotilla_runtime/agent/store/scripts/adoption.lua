-- Tasks of version 0.1.0, which a claim takes over as they are. A task of it has its budget in its journal and in its
-- limits only, has no revision, and is in no counts.

local function whole(value)
  if value == nil then return 0 end
  assert(type(value) == 'number' and value >= 0)
  return math.floor(value)
end

-- What the entry of a call says of the budget; nil for any other entry. Raises an error if it cannot be read.
local function read_old_call(written)
  local entry = cjson.decode(written)
  if entry.type == 'Intended' then
    assert(type(entry.call) == 'string' and type(entry.target) == 'string' and string.match(entry.kind, '^%a+$'))
    return {intends = entry.call, step = whole(entry.step), tokens = whole(entry.reserved_tokens), kind = entry.kind,
      target = entry.target}
  elseif entry.type == 'Done' then
    assert(type(entry.call) == 'string')
    return {does = entry.call, tokens = whole(entry.input_tokens) + whole(entry.output_tokens)}
  end
end

-- Reads all before anything is written, since a script that fails takes nothing back. What cannot be read is named.
local function read_old(id)
  local reading, calls = 'limits', {}
  local is_read, limits = pcall(function()
    local limits = cjson.decode(redis.call('HGET', task_key(id), 'limits'))
    for place, written in ipairs(redis.call('LRANGE', journal_key(id), 0, -1)) do
      reading = 'journal, in entry ' .. text(place)
      calls[#calls + 1] = read_old_call(written)
    end
    reading = 'limits'
    return {steps = whole(limits.max_steps), tokens = whole(limits.max_tokens)}
  end)
  if is_read then return {limits = limits, calls = calls} end
  return nil, reading
end

local function count_in(id)
  local held = redis.call('HMGET', task_key(id), 'status', 'caller')
  redis.call('HSET', task_key(id), 'revision', '')
  count(counts_key, held[1] .. ':', 1)
  if held[1] == 'Waiting' then count(places_key, held[2], 1) end
end

-- Returns whether the task can run. One that cannot be read ends.
local function adopt(id)
  local old, unread = read_old(id)
  if not old then
    local message = 'what version 0.1.0 has stored of this task cannot be read: its ' .. unread
    end_task(id, {status = 'Failed', reason = 'Infrastructure', message = message, shown = {}, busy = {}, calls = {}})
    return false
  end
  count_in(id)
  local budget, known = budget_of(id), {}
  for _, call in ipairs(old.calls) do
    if call.intends then
      local steps = known[call.step] and 0 or 1
      known[call.step] = true
      reserve(budget, call.intends, {Steps = steps, Tokens = call.tokens, Nano = 0, kind = call.kind,
        target = call.target})
    else
      settle_result(budget, call.does, call.tokens, -1)
    end
  end
  save_budget(budget)
  count_calls(id, ended_calling)
  redis.call('HSET', task_key(id), 'mostSteps', text(old.limits.steps), 'mostTokens', text(old.limits.tokens))
  return true
end

-- Its workers do not say what they hold.
local function adopt_lease(id)
  if redis.call('EXISTS', task_key(id)) == 0 then
    redis.call('ZREM', old_leases_key, id)
    return false
  end
  if not redis.call('HGET', task_key(id), 'revision') and not adopt(id) then return false end
  redis.call('SADD', held_key(redis.call('HGET', task_key(id), 'worker') or ''), id)
  return true
end
