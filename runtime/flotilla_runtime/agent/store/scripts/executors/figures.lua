-- What there is now, for the fleet's status: by revision, and how many requests each executor holds.
local DAY_MS = 86400000
redis.call('ZREMRANGEBYSCORE', queues_key, '-inf', text(now - DAY_MS))
local queues, executors, may_read = {}, {}, AT_ONCE * 50
for _, revision in ipairs(redis.call('ZRANGE', queues_key, 0, MOST_REVISIONS - 1, 'REV')) do
  sweep(revision)
  local waiting, running = redis.call('ZCARD', waiting_key(revision)), redis.call('ZCARD', running_key(revision))
  if waiting + running > 0 then queues[revision] = {waiting, running} end
  local held = may_read > 0 and redis.call('ZRANGE', running_key(revision), 0, may_read - 1) or {}
  may_read = may_read - #held
  for _, id in ipairs(held) do
    local name = string.match(redis.call('HGET', request_key(id), 'executor') or '', '^[^#]*')
    if name ~= '' then executors[name] = (executors[name] or 0) + 1 end
  end
end
return cjson.encode({queues = queues, executors = executors})
