-- What the fleet has done in each minute. Durations are counted in ticks, four for each doubling of the duration, so
-- the percentiles of an hour cost the same at any rate of tasks.
local TICKS_PER_DOUBLING = 4
local SMALLEST_TICK_MS = 50
local WINDOW_KEPT_SECONDS = 7200

local function tick(milliseconds)
  if milliseconds <= SMALLEST_TICK_MS then return 0 end
  return math.ceil(TICKS_PER_DOUBLING * math.log(milliseconds / SMALLEST_TICK_MS) / math.log(2))
end

local function count_in_window(amounts)
  local window = prefix .. 'window:' .. text(math.floor(now / 60000))
  for field, amount in pairs(amounts) do
    if amount > 0 then redis.call('HINCRBY', window, field, text(amount)) end
  end
  redis.call('EXPIRE', window, WINDOW_KEPT_SECONDS)
end

-- The calls of models that are under way: for each model how many, and of how many tasks.
local function began_calling(id, model)
  if redis.call('HINCRBY', task_key(id), 'calling:' .. model, 1) == 1 then count(demand_key, 'tasks:' .. model, 1) end
  count(demand_key, 'calls:' .. model, 1)
end

local function ended_calling(id, model)
  local field = 'calling:' .. model
  local calls = tonumber(redis.call('HGET', task_key(id), field) or '0')
  if calls == 0 then return end
  count(task_key(id), field, -1)
  count(demand_key, 'calls:' .. model, -1)
  if calls == 1 then count(demand_key, 'tasks:' .. model, -1) end
end
