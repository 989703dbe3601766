-- Shows what models write while they write it, to whoever watches their tasks. Nothing of it goes to the append-only
-- file or to a replica: when it is lost, the result of the call says the same. Only the worker that holds a task shows
-- text of it. With no entries, what was shown of a task is dropped.
redis.set_repl(redis.REPL_NONE)
local MOST_ENTRIES = 8192
local kept_ms = ARGV[2]
for place = 3, #ARGV, 3 do
  local id, token, entries = ARGV[place], ARGV[place + 1], cjson.decode(ARGV[place + 2])
  local key = prefix .. 'text:' .. id
  local held = redis.call('HMGET', task_key(id), 'token', 'status')
  if #entries == 0 then
    redis.call('DEL', key)
  elseif held[1] == token and held[2] == 'Running' then
    for _, entry in ipairs(entries) do
      redis.call('XADD', key, 'MAXLEN', '~', MOST_ENTRIES, '*', 'token', token, 'told', entry)
    end
    redis.call('PEXPIRE', key, kept_ms)
    redis.pcall('SPUBLISH', key, 'text')
  end
end
return 'Shown'
