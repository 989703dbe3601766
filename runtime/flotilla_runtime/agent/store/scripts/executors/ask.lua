-- Puts a request, or joins the one that is there. A call of the effect Unsafe whose request is lost, or has a reply that
-- does not say whether it happened, is asked for again only when its journal says that it did not happen. It is then put
-- anew, but not by the same asking, which was sent again because its answer was lost.
local id, revision, waiter, asked, effect, most, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local key = request_key(id)
sweep(revision)
local held = redis.call('HMGET', key, 'state', 'known', 'asked', 'revision')
local is_open = held[1] == 'Lost' or (held[1] == 'Answered' and effect == 'Unsafe' and held[2] ~= '1')
if held[4] and held[4] ~= revision then
  sweep(held[4])
  move(id, revision)
end
if not held[1] or (is_open and held[3] ~= asked) then
  redis.call('DEL', key)
  redis.call('HSET', key, 'state', 'Waiting', 'revision', revision, 'effect', effect, 'most', most, 'body', body,
    'since', text(now), 'asked', asked)
end
redis.call('HSET', key, 'waiter', waiter)
return seen(id)
