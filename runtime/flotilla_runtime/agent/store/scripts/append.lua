-- Appends entries to the journal at the position that the writer expects. Intents reserve, results settle, on the
-- budget of the tree's root; an intent that a limit refuses is left out. A write that is sent again, because its answer
-- was lost, is known by its name and answered as before.
local id, token, lease_ms, write, expected = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local held = owned(id, token)
if not held then return {'Stale'} end

local budget = budget_of(id, held.root, token)
local length = redis.call('LLEN', journal_key(id))
local function answer(refused)
  extend_lease(id, lease_ms, held.worker)
  return {'Written', length, held.cancel_requested, refused, shown_budget(budget)}
end

if held.write == write then return answer(held.refused or '') end
if length ~= expected then return {'Conflict'} end

local entries, refusals = {}, {}
for place = 7, #ARGV, 2 do
  local entry, about = ARGV[place], cjson.decode(ARGV[place + 1])
  local refused = nil
  if about.intends then
    refused = reserve(budget, about.intends, {Steps = about.steps, Tokens = about.tokens, Nano = about.nano,
      kind = about.kind, target = about.target}, about.spent)
  elseif about.does then
    local hold = settle_result(budget, about.does, about.tokens, about.nano)
    if hold and PROVES[hold.kind] then clear_of_suspicion(id) end
  end
  if refused then refusals[#refusals + 1] = refused else entries[#entries + 1] = entry end
end
length = push(id, entries, held.caller) or length
save_budget(budget)
redis.call('HSET', task_key(id), 'write', write)
if held.refused then redis.call('HDEL', task_key(id), 'refused') end
if #refusals == 0 then return answer('') end
local refused = cjson.encode(refusals)
redis.call('HSET', task_key(id), 'refused', refused)
return answer(refused)
