-- Appends entries to the journal at the position that the writer expects. Intents reserve, results settle, on the
-- budget of the tree's root; an intent that a limit refuses is left out. A write that is sent again, because its answer
-- was lost, is known by its name and answered as before.
local id, token, lease_ms, write, expected = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
if not owns(id, token) then return {'Stale'} end

local budget = budget_of(id)
local function answer(refused)
  extend_lease(id, lease_ms)
  return {'Written', redis.call('LLEN', journal_key(id)), cancel_requested(id), refused, shown_budget(budget)}
end

local before = redis.call('HMGET', task_key(id), 'write', 'refused')
if before[1] == write then return answer(before[2] or '') end
if redis.call('LLEN', journal_key(id)) ~= expected then return {'Conflict'} end

local entries, refusals = {}, {}
for place = 7, #ARGV, 2 do
  local entry, about = ARGV[place], cjson.decode(ARGV[place + 1])
  local refused = nil
  if about.intends then
    refused = reserve(budget, about.intends, {Steps = about.steps, Tokens = about.tokens, Nano = about.nano,
      kind = about.kind, target = about.target})
  elseif about.does then
    local hold = settle_result(budget, about.does, about.tokens, about.nano)
    if hold and PROVES[hold.kind] then clear_of_suspicion(id) end
  end
  if refused then refusals[#refusals + 1] = refused else entries[#entries + 1] = entry end
end
push(id, entries)
save_budget(budget)
local refused = #refusals > 0 and cjson.encode(refusals) or ''
redis.call('HSET', task_key(id), 'write', write)
if refused == '' then redis.call('HDEL', task_key(id), 'refused') else redis.call('HSET', task_key(id), 'refused', refused) end
return answer(refused)
