-- What has become of the requests of a worker.
local waiter, told = ARGV[2], {}
local swept = {}
for place = 3, #ARGV do
  local id = ARGV[place]
  local revision = redis.call('HGET', request_key(id), 'revision')
  if revision then
    if not swept[revision] then sweep(revision) end
    swept[revision] = true
    if redis.call('EXISTS', request_key(id)) == 1 then redis.call('HSET', request_key(id), 'waiter', waiter) end
  end
  told[#told + 1] = seen(id)
end
return told
