-- What HAProxy's own rules cannot say: which conversation a request belongs to, which replica is its home, and
-- how to refuse a request so that the caller reads the answer.
--
-- The first two actions run once a request, never wait, and fail open: a request that gets no key or no replica from
-- here goes to the least loaded one. The third waits where there is no replica at all. HAProxy runs one thread
-- (haproxy.py), so nothing changes between the choice made here and the connection that follows from it.
--
-- Why not `balance hash`: it lets a request wait at its own full server while others are idle, offers no least
-- connections for requests without a key, and a second backend for those would count its connections apart.

local PROMPT_BYTES = 4096
local PREFIX_BYTES = 32768 -- of a body that has no key in the buffer: its first user message ends behind it
local MESSAGES_LOOKED_AT = 8

-- The text of a JSON string that starts at `from`, as far as `limit` bytes, escapes left as they are; of anything
-- else its first `limit` bytes. Unlike json_query it needs no end of the value inside the buffer.
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

-- The first user message of a list, behind the first system message, both whole: callers that share a long template
-- and differ behind it would all have one home. Items of other types, which have no role, may come before it. Of a
-- body that is cut before it (a system message or tools of 64 KiB) the beginning counts, which is in every call the
-- same, although agents that differ only behind it share their home.
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

-- Input is a list of items or a text. The list goes first: from HAProxy 2.9 on json_query answers a list with its
-- whole text, and the list grows. Instructions are no part of the key: OpenAI's own clients write them behind the
-- input, so a conversation that outgrows the buffer would lose them, and its home. A response that names the one before
-- has no key: the name is another in every call, and the input only what was said last.
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

-- Where the conversation's key was found, and the key: the first of the places that the API names.
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
    -- A plain search first: json_query reads the whole body to say that a field is not there.
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

-- Splitmix64's finaliser: every bit of key and id moves every bit of the score.
local function score(key, id)
    local mixed = (key << 32) ~ (id * 0x9E3779B97F4A7C15)
    mixed = (mixed ~ (mixed >> 30)) * 0xBF58476D1CE4E5B9
    mixed = (mixed ~ (mixed >> 27)) * 0x94D049BB133111EB
    return (mixed ~ (mixed >> 31)) >> 1
end

local HALF = 2

local parsed_text, parsed = nil, {}

-- "replica=id,replica=id,…" ("-" for none), as the agent writes it when the servers change.
local function ready_servers(text)
    if text ~= parsed_text then
        parsed_text, parsed = text, {}
        for name, id in text:gmatch("([^,=]+)=(%d+)") do
            parsed[#parsed + 1] = { name = name, id = tonumber(id) }
        end
    end
    return parsed
end

-- In flight, queued and free of one server; nothing where HAProxy has no such server (just after its restart).
-- By the server's name alone: "backend/server" is cut in two in place, in a string that Lua shares.
local function load_of(txn, name)
    local known, connections = pcall(txn.f.srv_conn, txn.f, name)
    if not known then
        return nil
    end
    return tonumber(connections), tonumber(txn.f:srv_queue(name)), tonumber(txn.f:srv_conn_free(name))
end

-- The key's home is the server with the highest score. It is passed over for the next one when it is full and
-- another is not, or when it has more than its share: load factor times the average, this request counted. A server
-- that runs less than half of what it may is never passed over: its batch has room, and of two requests on an
-- idle set one would always lose its cache.
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
local GONE_SECONDS = 2 -- far longer than a look: an action whose caller has left is ended without a word

local held = {} -- the time of each held request's last look

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

-- Waits for a replica, as long as a request may wait in the queue; says why in txn.refused when none came.
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
local ENGINE_BEHIND_BYTES = 32768 -- of the buffer: as much is left there only by an engine that does not read

-- A body longer than the buffer is read by the engine as it comes, in one of its places, and HAProxy's time-outs ask
-- for no more than a byte now and then. So who sends more slowly than this, the client's time-out on top, is cut off.
-- The clock stands while the engine is not there yet, or behind. Only an error ends a request here, and HAProxy logs
-- it; what the function returns is not looked at.
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

local DRAINED_BYTES = 64 * 1024 * 1024
local PIECE_BYTES = 65536

-- Reads what is left of the body before it answers: HAProxy 2.6 closes a connection on which it answered early,
-- the caller's next bytes are then met with a reset, and many clients report that in the place of the answer.
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
