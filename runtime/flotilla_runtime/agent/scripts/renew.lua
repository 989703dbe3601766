-- Renews the leases of all tasks of one worker; returns which tasks are lost and which are to be cancelled.
local lease_ms = tonumber(ARGV[2])
local lost, cancelled = {}, {}
for index = 3, #ARGV, 2 do
  local id, token = ARGV[index], ARGV[index + 1]
  if not owns(id, token) then
    lost[#lost + 1] = id
  else
    extend_lease(id, lease_ms)
    if cancel_requested(id) == 1 then cancelled[#cancelled + 1] = id end
  end
end
return {lost, cancelled}
