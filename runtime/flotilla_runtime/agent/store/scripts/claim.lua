-- The only way to get a task, for its first run and for every later one. Tasks that were handed over or lost come first,
-- and admission never holds them back: they had their place. All others wait in the queue for one, also those that were
-- suspended, which gave theirs up; these go before the other tasks of their caller. Interactive tasks go before batch
-- tasks, except that each tenth grant from the queue goes to batch first, so that batch tasks never starve.
local WORKER_KEPT_MS = 600000

local take_all
do -- a script may have 200 names, and the parts in front have most of them
  local BATCH_FIRST_EVERY = 10

  local function take_first(revision, room)
    for _, id in ipairs(redis.call('ZRANGE', first_key(revision), 0, room - #granted - 1)) do
      leave_queue(id)
      grant(id)
    end
  end

  local function take_queue(room)
    while #granted < room do
      local taken = tonumber(redis.call('GET', prefix .. 'taken') or '0') + 1
      local first, second = 'Interactive', 'Batch'
      if taken % BATCH_FIRST_EVERY == 0 then first, second = second, first end
      local id = take(first, asked.revisions) or take(second, asked.revisions)
      if not id then return end
      redis.call('SET', prefix .. 'taken', text(taken))
      grant(id)
    end
  end

  local function lost_or_newer(revision)
    local known = redis.call('ZRANGEBYSCORE', newer_key(revision), '-inf', text(asked.format), 'LIMIT', 0, AT_ONCE)
    return redis.call('ZRANGE', apart_key(revision), 0, AT_ONCE - 1), known
  end

  function take_all(room)
    for _, revision in ipairs(asked.revisions) do
      for _, ids in ipairs({lost_or_newer(revision)}) do
        if take_apart(ids, room) then return end
      end
      if #granted < room then take_first(revision, room) end
    end
    room = math.min(room, #granted + admitted_now())
    take_streams(room)
    take_queue(room)
  end
end

grant_again()
if #granted > 0 then return granted end
redis.call('DEL', prefix .. 'nothing') -- a script that has removed something may go on in a full Redis
sweep(AT_ONCE, asked.lease_ms, asked.max_attempts)
wake_due(AT_ONCE)
redis.call('SET', lines_known_key, '1')
redis.call('ZADD', workers_key, text(now + asked.lease_ms), asked.worker)
redis.call('ZREMRANGEBYSCORE', workers_key, '-inf', text(now - WORKER_KEPT_MS))
redis.call('HDEL', lost_key, asked.worker)
meet_company()
local room = math.min(asked.wanted, share())
if room > 0 and not is_alone() then take_all(room) end
remember_grants()
if waiting() == 0 or open_to_me() <= 0 then
  for _, revision in ipairs(asked.revisions) do redis.call('DEL', calls_key(revision)) end
end
return granted
