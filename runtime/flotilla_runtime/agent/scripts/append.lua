-- Appends entries to the journal at the position that the writer expects. So a write that is sent again, because its
-- answer was lost, is recognised and not done twice.
local id, token, lease_ms, expected, entries = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), 5
if not owns(id, token) then return {'Stale', 0} end

local journal = journal_key(id)
local length = redis.call('LLEN', journal)
local count = #ARGV - entries
if length == expected then
  for index = entries + 1, #ARGV do redis.call('RPUSH', journal, ARGV[index]) end
  tell_growth(id)
elseif length ~= expected + count or redis.call('LINDEX', journal, -1) ~= ARGV[#ARGV] then
  return {'Conflict', length}
end
extend_lease(id, lease_ms)
return {'Written', cancel_requested(id)}
