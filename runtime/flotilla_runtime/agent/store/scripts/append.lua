-- Appends entries to the journal at the position that the writer expects. Intents reserve, results settle, on the
-- budget of the tree's root, and of the caller's share of the bytes; an intent that a limit refuses is left out. A write
-- that is sent again, because its answer was lost, is known by its name and answered as before. A spawned task whose call
-- is given up is cancelled; so are all when the task begins to make its compensations.
local id, token, lease_ms, write, expected = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local share = ARGV[7]
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

-- The result of a call is written in any case, because the call has happened. What a spawned task has found is with that
-- task, so its copy may be refused.
local function what_is_refused(about, bytes)
  if about.intends or not about.does or bytes <= LARGE then return about.intends end
  local hold = redis.call('HGET', open_key(id), about.does)
  return hold and read_hold(hold).kind == 'Spawn' and about.does or nil
end

local entries, refusals, left_out, more = {}, {}, {}, 0
local function beyond_share(about, bytes)
  if about.beyond then return nil end
  local call = what_is_refused(about, bytes)
  if not call then return nil end
  local wanted = bytes + (about.room or 0) - room_of(id, call)
  if not is_beyond_share(held.caller, more + wanted, share) then return nil end
  left_out[call] = true
  return no_room(call, held.caller, wanted, share)
end

local function reserved(about)
  local before = room_of(id, about.intends)
  give_room(id, about.intends, held.caller)
  local refused = reserve(budget, about.intends, {Steps = about.steps, Tokens = about.tokens, Nano = about.nano,
    kind = about.kind, target = about.target}, about.spent)
  if about.waits and not refused then wait_outside(id, about.intends, about.waits) end
  if not refused then before = about.room elseif not about.spent then before = 0 end
  keep_room(id, about.intends, before, held.caller)
  return refused
end

local no_longer_awaited, unwinds = {}, false -- spawned tasks that live while their calls have got results
local function settled(about)
  give_room(id, about.does, held.caller)
  local hold = settle_result(budget, about.does, about.tokens, about.nano)
  if hold and PROVES[hold.kind] then clear_of_suspicion(id) end
  if hold and WAITS_OUTSIDE[hold.kind] then end_wait_outside(id, about.does, about.signal) end
  if hold and hold.kind == 'Spawn' and about.child then no_longer_awaited[#no_longer_awaited + 1] = about.child end
end

for place = 8, #ARGV, 3 do
  local entry, about, payload = ARGV[place], cjson.decode(ARGV[place + 1]), ARGV[place + 2]
  local bytes = #entry + ENTRY_BYTES + payload_bytes(id, about.payload, payload)
  local refused = beyond_share(about, bytes)
  if not refused and about.intends then refused = reserved(about) end
  if refused then
    refusals[#refusals + 1] = refused
  elseif not left_out[about.does] then
    if about.does then settled(about) end
    if about.compensates then redis.call('HSET', task_key(id), 'compensates', '1') end
    if about.unwinds then
      redis.call('HSET', task_key(id), 'unwinds', '1')
      unwinds = true
    end
    more = more + #entry + ENTRY_BYTES
    entries[#entries + 1] = entry
    keep_payload(id, about.payload, payload, held.caller)
    note_elsewhere(id, about.elsewhere)
  end
end
length = push(id, entries, held.caller) or length
save_budget(budget)
for _, child in ipairs(no_longer_awaited) do cancel_task(child, 'the task that spawned it no longer waits for it') end
if unwinds then cancel_children(id) end
if unwinds or #no_longer_awaited > 0 then budget = budget_of(id, held.root, token) end -- what these held is used
redis.call('HSET', task_key(id), 'write', write)
if held.refused then redis.call('HDEL', task_key(id), 'refused') end
if #refusals == 0 then return answer('') end
local refused = cjson.encode(refusals)
redis.call('HSET', task_key(id), 'refused', refused)
return answer(refused)
