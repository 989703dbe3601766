-- Tasks that wait where workers of version 0.1.0 find them. One is adopted before it leaves its stream, so that none is
-- lost between.
local function is_asked_for(revision)
  for _, mine in ipairs(asked.revisions) do
    if mine == revision then return true end
  end
  return false
end

local function take_streams(room)
  for _, priority in ipairs(PRIORITIES) do
    local stream = stream_key(priority)
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', AT_ONCE)) do
      if #granted >= room then return end
      local id = entry[2][2]
      local held = redis.call('HMGET', task_key(id), 'id', 'revision')
      if is_asked_for(held[2] or '') then
        local can_run = held[1] and (held[2] or adopt(id))
        redis.call('XDEL', stream, entry[1])
        if can_run then grant(id) end
      end
    end
  end
end
