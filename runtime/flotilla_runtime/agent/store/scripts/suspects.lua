-- Suspects: tasks that may have killed their worker. They run in company of few, and at last alone.
local PATIENCE = 0.3 -- of a lease, in which a worker without tasks may come for a suspect that should be alone

-- The most suspects that may be together on this worker, and how many there are.
local most, suspects = nil, 0
local function meet_company()
  for _, id in ipairs(redis.call('SMEMBERS', held_key(asked.worker))) do
    local allowed = tonumber(redis.call('HGET', task_key(id), 'company') or nil)
    if allowed then
      suspects = suspects + 1
      most = math.min(most or allowed, allowed)
    end
  end
end

local function waited_ms(id)
  local priority = redis.call('HGET', task_key(id), 'priority')
  return now - tonumber(redis.call('ZSCORE', waiting_key(priority), id) or now)
end

-- A suspect that is to be the only one goes to a worker without tasks, and after a while to any. If it is lost there
-- too, it must be alone.
local function may_join(id)
  local held = redis.call('HMGET', task_key(id), 'company', 'strict')
  local allowed = tonumber(held[1] or nil)
  if not allowed then return true end
  if allowed == 1 and held_now() > 0 and (held[2] or waited_ms(id) < PATIENCE * asked.lease_ms) then return false end
  local together = math.min(most or allowed, allowed)
  if suspects + 1 > together then return false end
  most, suspects = together, suspects + 1
  return true
end

-- A suspect that must be alone has waited in vain for a worker without tasks. One worker takes no more until it has none.
local function must_empty(id)
  local is_strict = redis.call('HEXISTS', task_key(id), 'strict') == 1
  if not is_strict or held_now() == 0 or waited_ms(id) < PATIENCE * asked.lease_ms then return false end
  local emptying = prefix .. 'emptying'
  local chosen = redis.call('GET', emptying)
  if chosen and chosen ~= asked.worker then return false end
  redis.call('SET', emptying, asked.worker, 'PX', 2 * asked.lease_ms)
  return true
end

-- A suspect that is the only one, and the only task of this worker, stays so until it has got further.
local function is_alone() return most == 1 and held_now() == 1 end

-- Of these tasks, those that may be on this worker. Returns whether it takes nothing else.
local function take_apart(ids, room)
  for _, id in ipairs(ids) do
    if #granted >= room then return false end
    if may_join(id) then
      leave_queue(id)
      grant(id)
      if is_alone() then return true end
    elseif must_empty(id) then
      return true
    end
  end
  return false
end
