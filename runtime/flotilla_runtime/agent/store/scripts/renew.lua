-- Renews the leases of all tasks of one worker; returns which tasks are lost and which are to be cancelled.
local lease_ms = tonumber(ARGV[2])
local lost, cancelled = {}, {}
for index = 3, #ARGV, 2 do
  local id = ARGV[index]
  local held = owned(id, ARGV[index + 1])
  if held then
    extend_lease(id, lease_ms, held.worker)
    redis.call('HDEL', lost_key, held.worker)
    if held.cancel_requested == 1 then cancelled[#cancelled + 1] = id end
  else
    lost[#lost + 1] = id
  end
end
return {lost, cancelled}
