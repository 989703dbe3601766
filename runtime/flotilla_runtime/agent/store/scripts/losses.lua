-- What becomes of the tasks of a worker that was lost, and how the one that killed it is found.
local COMPANY_SHARE = 4

-- How many tasks a worker held when it was lost, and how many of them were suspects before. It is kept until all of
-- them are found, since their leases end one after another.
local function company_of(worker)
  local known = redis.call('HGET', lost_key, worker)
  if not known then
    local all, suspects = 0, 0
    for _, id in ipairs(redis.call('SMEMBERS', held_key(worker))) do
      all = all + 1
      suspects = suspects + redis.call('HEXISTS', task_key(id), 'company')
    end
    known = text(all) .. ' ' .. text(suspects)
    redis.call('HSET', lost_key, worker, known)
  end
  local all, suspects = string.match(known, '^(%d+) (%d+)$')
  return tonumber(all), tonumber(suspects)
end

-- A lease has ended. If the worker is lost, any of its tasks may have killed it. Most workers are killed by something
-- else, so the tasks only become suspects, and all go on at once. From the second loss on, suspects run in company of at
-- most a quarter as many. The only suspect of a worker that had other tasks too is alone from then on. Only a task that
-- was alone loses an attempt. So does one whose run alone has stopped.
local function lose(id, alone_for_sure, max_attempts)
  local held = redis.call('HMGET', task_key(id), 'worker', 'company', 'attempts', 'strict')
  local worker, company = held[1], held[2]
  local all, suspects = 1, 1
  if not alone_for_sure then all, suspects = company_of(worker) end
  local alone = all <= 1
  leave_worker(id)
  spend_open(id)
  redis.call('HINCRBY', task_key(id), 'losses', 1)
  -- As many attempts again for the compensations, in which its agent does not run.
  local most = must_run_to_end(id) and 2 * max_attempts or max_attempts
  if alone and tonumber(held[3]) > most then
    local message = 'the task was given up, because ' .. text(most) .. ' workers were lost while they ran it alone'
    if most > max_attempts then message = message .. '; its compensations were not all made' end
    return end_task(id, {status = 'Failed', reason = 'Infrastructure', message = message, shown = {}, busy = {},
      calls = {}})
  end
  local together = company and math.max(1, math.floor(suspects / COMPANY_SHARE)) or all
  redis.call('HINCRBY', task_key(id), 'attempts', alone and 1 or 0)
  if company and suspects == 1 then redis.call('HSET', task_key(id), 'strict', '1') end
  redis.call('HSET', task_key(id), 'lost', table.concat({company or '', held[4] or '0', alone and '1' or '0'}, ' '),
    'company', text(together))
  move(id, 'Waiting')
  join_line(apart_key, id)
end

-- A call outside the process has ended since the task was lost: it gets further, so it killed no worker. The next
-- suspect may have waited for that.
local PROVES = {Model = true, Retrieve = true, Tool = true}
local function clear_of_suspicion(id)
  if redis.call('HDEL', task_key(id), 'company', 'strict') == 0 then return end
  local revision = place_of(id).revision
  if redis.call('EXISTS', apart_key(revision)) == 1 then call_worker(revision) end
end
