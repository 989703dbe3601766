-- How many tasks may be at work over the whole fleet. Gateways say so, again and again: while none does, nothing limits
-- them.
local UNLIMITED = 2 ^ 50
local admitted_key = prefix .. 'admitted'

-- How many more tasks may begin now.
local function admitted_now()
  local most = tonumber(redis.call('GET', admitted_key) or nil)
  if not most then return UNLIMITED end
  return math.max(0, most - redis.call('ZCARD', leases_key) - redis.call('ZCARD', old_leases_key))
end

-- A task gives its place up. Where places are few, a worker that waits for work may now begin another task.
local function call_for_free_place(id)
  if redis.call('EXISTS', admitted_key) == 0 or waiting() == 0 then return end
  call_worker(redis.call('HGET', task_key(id), 'revision') or '')
end
