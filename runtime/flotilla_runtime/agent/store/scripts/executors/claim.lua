-- Grants an executor the oldest requests. A claim that is sent again is granted the same ones. It looks at so many ids and
-- no more, for an executor may fill the queue with ids of nothing. Those are gone then, and somebody is woken for the rest.
local MOST_TRIES = 10 * AT_ONCE
local executor, revision, token, lease_ms = ARGV[2], ARGV[3], ARGV[5], tonumber(ARGV[6])
local wanted = math.min(tonumber(ARGV[4]), AT_ONCE)
local granted_key = prefix .. 'granted:' .. token
sweep(revision)
local ids = redis.call('LRANGE', granted_key, 0, AT_ONCE - 1)
if #ids == 0 then
  local tries = 0
  while #ids < wanted and tries < MOST_TRIES do
    tries = tries + 1
    local id = redis.call('ZPOPMIN', waiting_key(revision))[1]
    if not id then break end
    if redis.call('HGET', request_key(id), 'state') == 'Waiting' then
      redis.call('HSET', request_key(id), 'state', 'Running', 'executor', executor, 'token', token)
      redis.call('PEXPIRE', request_key(id), math.max(KEPT_MS, 2 * lease_ms))
      redis.call('ZADD', running_key(revision), text(now + lease_ms), id)
      redis.call('RPUSH', granted_key, id)
      ids[#ids + 1] = id
    end
  end
  if #ids > 0 then redis.call('PEXPIRE', granted_key, KEPT_MS) end
  if tries == MOST_TRIES and redis.call('EXISTS', calls_key(revision)) == 0 then
    redis.call('RPUSH', calls_key(revision), '')
  end
end
if redis.call('EXISTS', waiting_key(revision)) == 0 then redis.call('DEL', calls_key(revision)) end
local told = {}
for _, id in ipairs(ids) do
  local held = redis.call('HMGET', request_key(id), 'state', 'token', 'effect', 'body')
  if held[1] == 'Running' and held[2] == token then
    for _, part in ipairs({id, held[3], held[4]}) do told[#told + 1] = part end
  end
end
return told
