-- Tasks of version 0.1.0, which a claim takes over as they are.

-- A task of version 0.1.0 has its budget in its journal and in its limits only.
local function adopt(id)
  local task = task_key(id)
  redis.call('HSET', task, 'revision', '', 'status', 'Adopted')
  local budget, step = budget_of(id), {}
  for _, written in ipairs(redis.call('LRANGE', journal_key(id), 0, -1)) do
    local entry = cjson.decode(written)
    if entry.type == 'Intended' then
      local steps = step[entry.step] and 0 or 1
      step[entry.step] = true
      reserve(budget, entry.call, {Steps = steps, Tokens = entry.reserved_tokens or 0, Nano = 0, kind = entry.kind,
        target = entry.target})
    elseif entry.type == 'Done' then
      settle_result(budget, entry.call, (entry.input_tokens or 0) + (entry.output_tokens or 0), -1)
    end
  end
  save_budget(budget)
  count_calls(id, ended_calling)
  local limits = cjson.decode(redis.call('HGET', task, 'limits'))
  redis.call('HSET', task, 'mostSteps', text(limits.max_steps), 'mostTokens', text(limits.max_tokens))
end

-- Workers of version 0.1.0 do not say what they hold.
local function adopt_lease(id)
  if not redis.call('HGET', task_key(id), 'revision') then adopt(id) end
  redis.call('SADD', held_key(redis.call('HGET', task_key(id), 'worker') or ''), id)
end
