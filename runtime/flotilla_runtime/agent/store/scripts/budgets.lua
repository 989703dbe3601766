-- Budgets. A tree of tasks has one, on the hash of its root: what may be used at most, what is used, and what calls
-- under way hold. A spawned task counts what it uses on its own hash too. All are integers below 2^53, so sums are exact.
local AMOUNTS = {'Steps', 'Tokens', 'Nano'}
local LIMITS = {Steps = 'maxSteps', Tokens = 'maxTokens', Nano = 'maxCostUSD'}

-- The budget as it stands; the changes are made to this table and written by `save_budget`.
local function budget_of(id, root, token)
  if not token then root, token = unpack(redis.call('HMGET', task_key(id), 'root', 'token')) end
  root = root or id
  local told = redis.call('HMGET', task_key(root), 'usedSteps', 'usedTokens', 'usedNano', 'heldSteps', 'heldTokens',
    'heldNano', 'mostSteps', 'mostTokens', 'mostNano')
  local budget = {id = id, token = token, root = root, used = {}, held = {}, most = {},
    own = {Steps = 0, Tokens = 0, Nano = 0}}
  for place, name in ipairs(AMOUNTS) do
    budget.used[name] = tonumber(told[place] or '0')
    budget.held[name] = tonumber(told[place + 3] or '0')
    budget.most[name] = tonumber(told[place + 6] or nil)
    -- A message may outlive the task from which it came; when that is forgotten, nothing more may be used.
    if root ~= id and not told[7] then budget.most[name] = 0 end
  end
  return budget
end

local function save_budget(budget)
  -- A root that is forgotten is not made anew by a spawned task that outlived it.
  local is_own = budget.root == budget.id
  if budget.changed and (is_own or redis.call('EXISTS', task_key(budget.root)) == 1) then
    local used, held = budget.used, budget.held
    redis.call('HSET', task_key(budget.root), 'usedSteps', text(used.Steps), 'usedTokens', text(used.Tokens),
      'usedNano', text(used.Nano), 'heldSteps', text(held.Steps), 'heldTokens', text(held.Tokens),
      'heldNano', text(held.Nano))
    if budget.unpriced then redis.call('HSET', task_key(budget.root), 'unpriced', '1') end
  end
  if budget.changed and not is_own then
    for _, name in ipairs(AMOUNTS) do
      if budget.own[name] > 0 then redis.call('HINCRBY', task_key(budget.id), 'used' .. name, text(budget.own[name])) end
    end
    if budget.unpriced then redis.call('HSET', task_key(budget.id), 'unpriced', '1') end
  end
  budget.changed = false
end

local function shown_budget(budget)
  local shown = {}
  for _, part in ipairs({budget.used, budget.held, budget.most}) do
    for _, name in ipairs(AMOUNTS) do shown[#shown + 1] = part[name] and text(part[name]) or '' end
  end
  return shown
end

-- The token says under which claim the call was begun.
local function read_hold(written)
  local steps, tokens, nano, token, kind, target = string.match(written, '^(%d+) (%d+) (%d+) (%d+) (%a+) (.*)$')
  return {Steps = tonumber(steps), Tokens = tonumber(tokens), Nano = tonumber(nano), token = token, kind = kind,
    target = target}
end

local function is_under_way(hold, token) return hold.kind == 'Model' and hold.token == token end

-- What a call held becomes used: this much of it.
local function settle(budget, hold, used)
  for _, name in ipairs(AMOUNTS) do
    budget.held[name] = math.max(0, budget.held[name] - hold[name])
    budget.used[name] = budget.used[name] + used[name]
    budget.own[name] = budget.own[name] + used[name]
  end
  budget.changed = true
end

-- A try that was lost may have used all that it held. It is made again as the same step, which counts once.
local function settle_lost(budget, hold)
  settle(budget, hold, {Steps = 0, Tokens = hold.Tokens, Nano = hold.Nano})
end

-- What the open calls of a lost task hold counts as used at once. It would when they are made again; but other calls of
-- the tree would wait for it until then, and among them a suspect that lets no other one run. Their steps stay held.
local SPENT = '0' -- in place of the claim's token
local function spend_open(id)
  local budget = budget_of(id)
  local flat = redis.call('HGETALL', open_key(id))
  for place = 1, #flat, 2 do
    local hold = read_hold(flat[place + 1])
    if hold.token ~= SPENT then
      local amount = {Steps = 0, Tokens = hold.Tokens, Nano = hold.Nano}
      settle(budget, amount, amount)
      redis.call('HSET', open_key(id), flat[place],
        table.concat({text(hold.Steps), '0', '0', SPENT, hold.kind, hold.target}, ' '))
    end
  end
  save_budget(budget)
end

-- The first limit that does not allow this much more; nil if all do. What is used of steps never comes back.
local function refusal(budget, wanted)
  for _, name in ipairs(AMOUNTS) do
    local committed = budget.used[name] + budget.held[name]
    local most = budget.most[name]
    if most and wanted[name] > 0 and committed + wanted[name] > most then
      local may_change = name ~= 'Steps' and budget.held[name] > 0
      return {limit = LIMITS[name], most = text(most), committed = text(committed), wanted = text(wanted[name]),
        may_change = may_change}
    end
  end
  return nil
end

-- What is used of a hold. `nano` is -1 where it is unknown. What a lost task held is counted already.
local function use_of(budget, hold, steps, tokens, nano)
  if hold.token == SPENT then tokens, nano = 0, 0 end
  if hold.kind == 'Model' and nano < 0 and tokens > 0 then budget.unpriced = true end
  if nano < 0 then nano = hold.Nano end
  return {Steps = steps, Tokens = tokens, Nano = nano}
end

local function leave_open(budget, call, hold)
  redis.call('HDEL', open_key(budget.id), call)
  if is_under_way(hold, budget.token) then ended_calling(budget.id, hold.target) end
end

-- A call goes on whose tries have spent what it held. If a limit does not allow that, it keeps what it holds, and its
-- result settles that.
local function settle_spent(budget, call, hold, wanted, spent)
  local before = {}
  for _, part in ipairs({'used', 'held', 'own'}) do
    before[part] = {}
    for _, name in ipairs(AMOUNTS) do before[part][name] = budget[part][name] end
  end
  settle(budget, hold, use_of(budget, hold, 0, spent.tokens, spent.nano))
  local refused = refusal(budget, wanted)
  if refused then
    budget.used, budget.held, budget.own = before.used, before.held, before.own
  else
    leave_open(budget, call, hold)
  end
  return refused
end

-- Holds what a call can use at most. Returns the refusal if a limit does not allow it. A call that holds something
-- already has either `spent` so much of it, and goes on, or is made again, because its worker was lost.
local function reserve(budget, call, wanted, spent)
  local written = redis.call('HGET', open_key(budget.id), call)
  local hold, refused = written and read_hold(written), nil
  if hold and spent then
    refused = settle_spent(budget, call, hold, wanted, spent)
  else
    if hold then
      settle_lost(budget, hold)
      leave_open(budget, call, hold)
    end
    refused = refusal(budget, wanted)
  end
  if refused then
    refused.call = call
    return refused
  end
  for _, name in ipairs(AMOUNTS) do budget.held[name] = budget.held[name] + wanted[name] end
  budget.changed = true
  redis.call('HSET', open_key(budget.id), call, table.concat({text(wanted.Steps), text(wanted.Tokens),
    text(wanted.Nano), budget.token, wanted.kind, wanted.target}, ' '))
  if wanted.kind == 'Model' then began_calling(budget.id, wanted.target) end
  return nil
end

-- Counts the result of a call.
local function settle_result(budget, call, tokens, nano)
  local written = redis.call('HGET', open_key(budget.id), call)
  if not written then return nil end
  local hold = read_hold(written)
  leave_open(budget, call, hold)
  settle(budget, hold, use_of(budget, hold, hold.Steps, tokens, nano))
  return hold
end

-- Nobody will write the results of these calls: what they hold counts as used.
local function settle_all(id)
  local budget = budget_of(id)
  for _, written in ipairs(redis.call('HVALS', open_key(id))) do
    local hold = read_hold(written)
    settle(budget, hold, hold)
  end
  redis.call('DEL', open_key(id))
  save_budget(budget)
end

-- A worker that stopped or was lost makes none of its calls any more; one that comes back goes on with them.
local function count_calls(id, counted)
  local token = redis.call('HGET', task_key(id), 'token')
  for _, written in ipairs(redis.call('HVALS', open_key(id))) do
    local hold = read_hold(written)
    if is_under_way(hold, token) then counted(id, hold.target) end
  end
end
