-- Renews the leases of an executor's requests. Answers with those that it has lost, and those that nobody waits for.
local lease_ms = tonumber(ARGV[2])
local lost, withdrawn = {}, {}
for place = 3, #ARGV, 2 do
  local id, token = ARGV[place], ARGV[place + 1]
  local held = redis.call('HMGET', request_key(id), 'state', 'token', 'revision', 'withdrawn')
  if held[1] ~= 'Running' or held[2] ~= token then
    lost[#lost + 1] = id
  else
    redis.call('ZADD', running_key(held[3]), text(now + lease_ms), id)
    redis.call('PEXPIRE', request_key(id), math.max(KEPT_MS, 2 * lease_ms))
    if held[4] then withdrawn[#withdrawn + 1] = id end
  end
end
return {lost, withdrawn}
