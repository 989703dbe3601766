-- Put in front of every script of this folder, followed by the parts that script_values.py names. ARGV[1] is the prefix of
-- the fleet's keys, which all share one hash tag. KEYS[1] is one of them, from which a Redis Cluster finds the shard. All
-- times are by Redis' clock, because it is the only clock that all workers share.
local prefix = ARGV[1]
-- Tool executors may not call GET, so none of these scripts runs on keys that an executor has made up.
redis.call('GET', prefix .. 'guard')

local function text(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function task_key(id) return prefix .. 'task:' .. id end
local function journal_key(id) return prefix .. 'journal:' .. id end
-- The calls of a task without a result, each with what it holds of the budget.
local function open_key(id) return prefix .. 'open:' .. id end
-- The spawned tasks of a task that have not ended.
local function children_key(id) return prefix .. 'children:' .. id end
-- The calls of a task that wait for somebody outside, the decisions that were made, and the signals that nobody took yet.
local function asked_key(id) return prefix .. 'asked:' .. id end
local function decided_key(id) return prefix .. 'decided:' .. id end
local function signals_key(id) return prefix .. 'signals:' .. id end
-- The tasks that a worker holds.
local function held_key(worker) return prefix .. 'held-by:' .. worker end

local leases_key = prefix .. 'held'
-- Leases of version 0.1.0 are in a set of their own, so that its workers take no task of a newer one.
local old_leases_key = prefix .. 'leases'
local workers_key = prefix .. 'workers'
-- The workers of a revision that have asked for tasks lately, by the time until which they count.
local function takers_key(revision) return prefix .. 'takers:' .. revision end
local lost_key = prefix .. 'lost'
local timers_key = prefix .. 'timers'
local suspended_key = prefix .. 'suspended'
local unknown_key = prefix .. 'unknown-effects'
-- The tasks that failed, by the time at which they ended: they are kept longer than others, with their journals.
local dead_letters_key = prefix .. 'dead-letters'
-- The tasks of which somebody may decide on a call, whatever else they do; ids sort by time.
local approvals_key = prefix .. 'approvals'

-- Counts in hashes. A field that comes to nothing goes, so a hash holds only what there is.
local counts_key = prefix .. 'counts'
local places_key = prefix .. 'places'
local stored_key = prefix .. 'stored'
local demand_key = prefix .. 'demand'

local function count(key, field, by)
  if by ~= 0 and redis.call('HINCRBY', key, field, text(by)) <= 0 then redis.call('HDEL', key, field) end
end

-- What Redis needs for a task and for an entry besides their texts, as measured; so that the bytes that are counted
-- come near to the memory that is used.
local TASK_BYTES = 3500
local ENTRY_BYTES = 24
local EVERYBODY = '*'

-- Whoever knows the caller saves a look.
local function store(id, field, bytes, caller)
  redis.call('HINCRBY', task_key(id), field, text(bytes))
  caller = caller or redis.call('HGET', task_key(id), 'caller')
  count(stored_key, caller, bytes)
  count(stored_key, EVERYBODY, bytes)
end

-- Whoever watches the task hears that its journal has grown. Returns its length, or nil if there was nothing to write.
local function push(id, texts, caller)
  local bytes, length = 0, nil
  for _, entry in ipairs(texts) do
    length = redis.call('RPUSH', journal_key(id), entry)
    bytes = bytes + #entry + ENTRY_BYTES
  end
  if not length then return nil end
  store(id, 'journalBytes', bytes, caller)
  redis.pcall('SPUBLISH', prefix .. 'events:' .. id, text(length))
  return length
end

local function append(id, entry)
  entry.at = now
  push(id, {cjson.encode(entry)})
end
