-- What a claim asks for: `wanted` tasks of `revisions`, for a worker that knows journals up to `format`.
local asked = {worker = ARGV[2], lease_ms = tonumber(ARGV[3]), wanted = tonumber(ARGV[4]), request = ARGV[5],
  step = ARGV[6], max_attempts = tonumber(ARGV[7]), format = tonumber(ARGV[8]), revisions = {unpack(ARGV, 9)}}
local AT_ONCE = 256 -- a claim looks at no more tasks of one kind

local function held_now() return redis.call('SCARD', held_key(asked.worker)) end
