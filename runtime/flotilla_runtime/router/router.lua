-- The parts of the router that HAProxy's own rules cannot express: the key of a request's conversation, the choice of
-- the replica, the wait for a first replica, the limit for slow uploads, and refusals that the caller can read.
--
-- The actions flotilla_key and flotilla_pick run once for each request and never wait. A request that gets no key or
-- no replica from them goes to the least loaded replica. flotilla_hold waits when there is no replica at all. HAProxy
-- runs one thread (haproxy.py), so no load changes between the choice here and the connection that follows.
--
-- `balance hash` is not used, for three reasons: a request would wait for its full server while others are idle; it
-- has no least connections for requests without a key; and a second backend for those would count its connections
-- separately.

local PROMPT_BYTES = 4096
local PREFIX_BYTES = 32768 -- the key's length when the first user message does not end within the buffer
local MESSAGES_LOOKED_AT = 8

-- The JSON string that starts at `from`, cut to `limit` bytes, with its escapes unchanged. Of another JSON value the
-- first `limit` bytes. Unlike json_query it also works when the value does not end within the buffer.
local function raw_start(body, from, limit)
    local piece = body:sub(from, from + limit - 1)
    if piece:sub(1, 1) ~= '"' then
        return piece
    end
    local at = 2
    while true do
        local stop = piece:find('["\\]', at)
        if stop == nil then
            return piece
        elseif piece:sub(stop, stop) == '"' then
            return piece:sub(1, stop)
        end
        at = stop + 2
    end
end

-- A message's text: a string, or the first text among its parts (an image may come before it).
local function content_text(query, path)
    local text = query(path)
    for part = 0, 3 do
        text = text or query(path .. "[" .. part .. "].text")
    end
    return text
end

local function beginning(body)
    return #body >= PREFIX_BYTES and body:sub(1, PREFIX_BYTES) or nil
end

-- The key is the first system message and the first user message, both whole; with a part of them, callers that share
-- a long template would all get one home replica. Items without a role, which are of other types, may come before.
-- When the buffer ends before the user message (after a system message or tools of 64 KiB), the key is the beginning
-- of the body. It is the same in every call of a conversation, but agents that differ only later share a home.
local function messages_key(query, body, cut, list)
    local system = nil
    for i = 0, MESSAGES_LOOKED_AT - 1 do
        local message = list .. "[" .. i .. "]"
        local role = query(message .. ".role")
        if role == "user" then
            local user = content_text(query, message .. ".content")
            if user ~= nil then
                return (system or "") .. "\0" .. user
            end
            return beginning(body)
        elseif system == nil and (role == "system" or role == "developer") then
            system = content_text(query, message .. ".content")
        elseif role == nil and query(message .. ".type") == nil then
            return cut and beginning(body) or nil
        end
    end
    return nil
end

-- The input is a list of items or a text. A list is tested for first, because from HAProxy 2.9 on json_query returns
-- the whole text of a list, which grows with every call. The instructions are not part of the key: OpenAI's own
-- clients write them after the input, so a conversation that outgrows the buffer would lose them, and with them its
-- home. A request with previous_response_id has no key: the id differs in every call, and the input is only the
-- latest message.
local function responses_key(query, body, cut)
    if query("$.previous_response_id") then
        return nil
    end
    if query("$.input[0].role") or query("$.input[0].type") then
        return messages_key(query, body, cut, "$.input")
    end
    return query("$.input") or cut and beginning(body) or nil
end

local function prompt_key(body)
    local _, stop = body:find('"prompt"%s*:%s*')
    return stop and raw_start(body, stop + 1, PROMPT_BYTES)
end

-- The key's source and the key, from the first of the documented places that has one.
local function find_key(txn)
    local session = txn.f:req_fhdr("x-session-id")
    if session ~= nil and session ~= "" then
        return "Header", session
    end
    local body = txn.f:req_body()
    if body == nil or body == "" then
        return nil
    end
    local function query(path)
        local value = txn.c:json_query(body, path)
        return value ~= "" and value or nil
    end
    -- A plain search first, because json_query reads the whole body when a field is missing.
    local cache_key = body:find('"prompt_cache_key"', 1, true) and query("$.prompt_cache_key")
    if cache_key then
        return "CacheKey", cache_key
    end
    local cut = #body < tonumber(txn.f:req_body_size())
    local path = txn.f:path()
    if path == "/v1/chat/completions" then
        return "Messages", messages_key(query, body, cut, "$.messages")
    elseif path == "/v1/responses" then
        return "Input", responses_key(query, body, cut)
    elseif path == "/v1/completions" then
        return "Prompt", prompt_key(body)
    end
    return nil
end

core.register_action("flotilla_key", { "http-req" }, function(txn)
    local source, key = find_key(txn)
    if key ~= nil then
        txn:set_var("txn.key", tonumber(txn.sc:xxh32(source .. "\0" .. key)))
        txn:set_var("txn.key_source", source)
    end
end, 0)

-- Splitmix64's finaliser: each bit of key and id affects all bits of the score.
local function score(key, id)
    local mixed = (key << 32) ~ (id * 0x9E3779B97F4A7C15)
    mixed = (mixed ~ (mixed >> 30)) * 0xBF58476D1CE4E5B9
    mixed = (mixed ~ (mixed >> 27)) * 0x94D049BB133111EB
    return (mixed ~ (mixed >> 31)) >> 1
end

local HALF = 2

local parsed_text, parsed = nil, {}

-- Parses "replica=id,replica=id,…", or "-" for none, which the agent writes when the servers change.
local function ready_servers(text)
    if text ~= parsed_text then
        parsed_text, parsed = text, {}
        for name, id in text:gmatch("([^,=]+)=(%d+)") do
            parsed[#parsed + 1] = { name = name, id = tonumber(id) }
        end
    end
    return parsed
end

-- In flight, queued and free of one server; nil when HAProxy has no such server, as just after its restart. The server
-- is named without its backend: HAProxy would split "backend/server" in place, in a string that Lua shares.
local function load_of(txn, name)
    local known, connections = pcall(txn.f.srv_conn, txn.f, name)
    if not known then
        return nil
    end
    return tonumber(connections), tonumber(txn.f:srv_queue(name)), tonumber(txn.f:srv_conn_free(name))
end

-- The key's home is the server with the highest score. The server with the next score is taken instead when the home
-- is full and another is not, or when the home has its share of the load, which is load factor times the average with
-- this request included. A server below half of its capacity never counts as having its share: its batch has room,
-- and of two requests on an idle set one would always lose its cache.
core.register_action("flotilla_pick", { "http-req" }, function(txn)
    local servers = ready_servers(txn:get_var("txn.servers") or "")
    local key = txn:get_var("txn.key")
    local candidates, total, room = {}, 0, false
    for _, server in ipairs(servers) do
        local connections, queued, free = load_of(txn, server.name)
        if connections ~= nil then
            local open = free > 0 and queued == 0
            room = room or open
            total = total + connections + queued
            candidates[#candidates + 1] =
                { name = server.name, score = score(key, server.id), load = connections + queued, open = open,
                  half = math.ceil((connections + free) / HALF) }
        end
    end
    local factor_percent = txn:get_var("txn.load_factor_percent")
    local share = math.ceil(factor_percent * (total + 1) / (100 * #candidates))
    local home, chosen = nil, nil
    for _, candidate in ipairs(candidates) do
        if home == nil or candidate.score > home.score then
            home = candidate
        end
        local allowed = candidate.load < math.max(share, candidate.half) and (candidate.open or not room)
        if allowed and (chosen == nil or candidate.score > chosen.score) then
            chosen = candidate
        end
    end
    if chosen ~= nil then
        txn:set_var("txn.server", chosen.name)
        txn:set_var("txn.moved", chosen == home and 0 or 1)
    end
end, 0)

local HOLD_LOOK_MILLISECONDS = 100
local GONE_SECONDS = 2 -- much longer than a look; HAProxy ends an action silently when its caller has left

local held = {} -- for each held request, the time of its last look for a replica

local function count_held()
    local count, now = 0, core.now().sec
    for request, looked in pairs(held) do
        if now - looked > GONE_SECONDS then
            held[request] = nil
        else
            count = count + 1
        end
    end
    return count
end

-- Waits for a replica, at most as long as a request may be queued. Without one it sets txn.refused to the reason.
core.register_action("flotilla_hold", { "http-req" }, function(txn)
    if count_held() >= (txn:get_var("txn.queue_limit") or 0) then
        txn:set_var("txn.refused", "QueueFull")
        return
    end
    local request = {}
    local give_up = core.now().sec + txn:get_var("txn.hold_seconds")
    while tonumber(txn.f:nbsrv("engines")) == 0 do
        if core.now().sec > give_up then
            txn:set_var("txn.refused", "QueueTimeout")
            break
        end
        held[request] = core.now().sec
        core.msleep(HOLD_LOOK_MILLISECONDS)
    end
    held[request] = nil
end, 0)

core.register_cli({ "flotilla", "held" }, "flotilla held : requests that wait for a first replica", function(applet)
    applet:send(count_held() .. "\n")
end)

local UPLOAD_BYTES_PER_SECOND = 32768
local ENGINE_BEHIND_BYTES = 32768 -- unsent bytes in the buffer; so many remain only when the engine does not read

-- Ends uploads that are too slow. A body longer than the buffer takes one of the engine's request slots while it
-- arrives, and HAProxy's time-outs are satisfied with a byte now and then. So a caller must send at least
-- UPLOAD_BYTES_PER_SECOND, with the client's time-out as grace. The measurement starts over while no engine is
-- connected and while the engine does not read. Only an error can end a request in a filter, and HAProxy logs it;
-- return values are ignored.
local Upload = { id = "flotilla_upload", flags = filter.FLT_CFG_FL_HTX }

function Upload:new()
    return setmetatable({}, { __index = self })
end

function Upload:http_headers(txn, message)
    if not message:is_resp() and tonumber(txn.f:req_body_len()) < tonumber(txn.f:req_body_size()) then
        filter.register_data_filter(self, message.channel)
    end
end

function Upload:http_payload(txn, message)
    local time = core.now()
    local now = time.sec + time.usec / 1000000
    if not self.begun or message:output() >= ENGINE_BEHIND_BYTES then
        self.begun, self.since = true, nil
    elseif self.since == nil then
        self.since, self.bytes = now, message:input()
    else
        self.bytes = self.bytes + message:input()
        if now - self.since > self.grace_seconds + self.bytes / UPLOAD_BYTES_PER_SECOND then
            txn:set_var("txn.refused", "TooSlow")
            error("a caller's body came too slowly", 0)
        end
    end
end

core.register_filter("flotilla_upload", Upload, function(class, arguments)
    class.grace_seconds = tonumber(arguments[1])
    return class
end)

-- Ends a request that was refused when its body still comes after so many seconds. Reading the rest is only a courtesy
-- (see flotilla_refuse), and whoever sends a byte now and then would keep a connection for hours.
local Refused = { id = "flotilla_refused", flags = filter.FLT_CFG_FL_HTX }

function Refused:new()
    return setmetatable({}, { __index = self })
end

function Refused:http_headers(txn, message)
    if not message:is_resp() and txn:get_var("txn.refused") then
        self.begun = core.now().sec
        filter.register_data_filter(self, message.channel)
    end
end

function Refused:http_payload()
    if core.now().sec - self.begun > self.most_seconds then
        error("the body of a refused request came too slowly", 0)
    end
end

core.register_filter("flotilla_refused", Refused, function(class, arguments)
    class.most_seconds = tonumber(arguments[1])
    return class
end)

local DRAINED_BYTES = 64 * 1024 * 1024
local PIECE_BYTES = 65536

-- Reads the rest of the body before it answers, for some seconds (see flotilla_refused). When HAProxy 2.6 answers
-- earlier it closes the connection, so the caller's next bytes get a reset, and many clients report the reset in place
-- of the answer.
core.register_service("flotilla_refuse", "http", function(applet)
    local left = DRAINED_BYTES
    while left > 0 do
        local piece = applet:receive(PIECE_BYTES)
        if piece == nil or piece == "" then
            break
        end
        left = left - #piece
    end
    local refusal = flotilla_refusals[applet:get_var("txn.refused")]
    applet:set_status(refusal.status)
    applet:add_header("content-type", "application/json")
    applet:add_header("content-length", tostring(#refusal.body))
    for name, value in pairs(refusal.headers) do
        applet:add_header(name, value)
    end
    applet:start_response()
    applet:send(refusal.body)
end)
