-- Tasks that wait where workers of version 0.1.0 find them.
local function take_streams(room)
  for _, priority in ipairs(PRIORITIES) do
    local stream = stream_key(priority)
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', AT_ONCE)) do
      if #granted >= room then return end
      local revision = redis.call('HGET', task_key(entry[2][2]), 'revision') or ''
      for _, mine in ipairs(asked.revisions) do
        if mine == revision then
          redis.call('XDEL', stream, entry[1])
          grant(entry[2][2])
          break
        end
      end
    end
  end
end
