-- What has become of the requests of a worker. Those that wait go to the executors of its revision. A worker whose fleet
-- has no executors any more takes them back instead: nobody has begun them, and from now on nobody will.
local waiter, has_executors, own, told = ARGV[2], ARGV[3] == '1', ARGV[4], {}
local swept = {}
for place = 5, #ARGV do
  local id = ARGV[place]
  local revision = redis.call('HGET', request_key(id), 'revision')
  if revision then
    if not swept[revision] then sweep(revision) end
    swept[revision] = true
    if redis.call('EXISTS', request_key(id)) == 1 then redis.call('HSET', request_key(id), 'waiter', waiter) end
    if has_executors then move(id, own) end
  end
  if not has_executors and take_back(id) then
    told[#told + 1] = {'TakenBack', '', ''}
  else
    told[#told + 1] = seen(id)
  end
end
return told
