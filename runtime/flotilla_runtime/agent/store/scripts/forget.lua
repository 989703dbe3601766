-- Removes the journals of tasks that succeeded or were cancelled a while ago, and everything about tasks whose results
-- have expired, a bounded number at a time. Tasks that failed have a time of their own, also for their journals.
local journal_ttl_ms, result_ttl_ms, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local dead_letter_ttl_ms = tonumber(ARGV[5])
local ended, journals = prefix .. 'ended', prefix .. 'journals'

local function expired(key, ttl_ms)
  return redis.call('ZRANGEBYSCORE', key, '-inf', text(now - ttl_ms), 'LIMIT', 0, limit)
end

local function give_back(id, field)
  local held = redis.call('HMGET', task_key(id), field, 'caller')
  local bytes = tonumber(held[1] or '0')
  redis.call('HDEL', task_key(id), field)
  if not held[2] then return end
  count(stored_key, held[2], -bytes)
  count(stored_key, EVERYBODY, -bytes)
end

-- A parent reads how its spawned tasks ended.
local function is_needed(id)
  local parent = redis.call('HGET', task_key(id), 'parent')
  return parent and LIVE[redis.call('HGET', task_key(parent), 'status')]
end

local function forget(id)
  local held = redis.call('HMGET', task_key(id), 'caller', 'idempotencyEntry', 'elsewhere')
  if held[2] then redis.call('DEL', held[2]) end
  if held[1] then redis.call('ZREM', prefix .. 'tasks-of:' .. held[1], id) end
  give_back(id, 'bytes')
  give_back(id, 'journalBytes')
  give_back(id, 'payloadBytes')
  if held[3] then redis.call('SADD', drops_key, id) end
  redis.call('DEL', task_key(id), journal_key(id), open_key(id), children_key(id), asked_key(id),
    decided_key(id), signals_key(id), payloads_key(id))
  for _, key in ipairs({prefix .. 'tasks', ended, dead_letters_key, journals}) do redis.call('ZREM', key, id) end
end

local forgotten = 0
local function forget_all(key, ttl_ms)
  for _, id in ipairs(expired(key, ttl_ms)) do
    if is_needed(id) then
      redis.call('ZADD', key, text(now), id)
    else
      forget(id)
      forgotten = forgotten + 1
    end
  end
end
forget_all(ended, result_ttl_ms)
forget_all(dead_letters_key, dead_letter_ttl_ms)
for _, id in ipairs(expired(journals, journal_ttl_ms)) do
  redis.call('DEL', journal_key(id))
  drop_journal_payloads(id)
  give_back(id, 'journalBytes')
  redis.call('ZREM', journals, id)
end
return forgotten
