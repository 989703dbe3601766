-- Writes the intent of a spawned task and submits that task, both or neither. Its agent is the target of the call, else that
-- of the task above.
local input_payload, share = ARGV[12], ARGV[13]
local depth, more = tonumber(above[6] or '0') + 1, TASK_BYTES + #input + #entry
if is_beyond_share(held.caller, more, share) then
  return remember(cjson.encode({no_room(call, held.caller, more, share)}))
end
local under_way = redis.call('SCARD', children_key(id))
if not is_known and depth > max_depth then return refuse('maxDepth', max_depth, depth - 1, false) end
if not is_known and under_way >= max_fan_out then return refuse('maxFanOut', max_fan_out, under_way, true) end
local refused = write_intent('Spawn')
if refused then return remember(cjson.encode({refused})) end
if is_known then return remember('') end

end_with_the_one_above()
make_child(depth, about.target ~= '' and about.target or above[8])
await_child()
if input_payload ~= '' then
  redis.call('HSET', task_key(child), 'inputPayload', input_payload)
  note_elsewhere(child, true)
end
store(child, 'bytes', TASK_BYTES + #input)
append(child, {type = 'Submitted'})
move(child, 'Waiting')
join_queue(child, false)
return remember('')
