-- Copyright (C) the ngx_http_llm_stream_module authors
-- SPDX-License-Identifier: BSD-2-Clause

-- body_filter_by_lua: what a gateway in Lua does to know what a stream costs.
-- Each event is cut out and decoded, its content is measured, a usage is kept;
-- all of it goes on as it came.  Nothing is reserved, timed, held or ended.

local decode = require("cjson.safe").decode
local find, sub = string.find, string.sub

local ctx = ngx.ctx
local data = ngx.arg[1]
local from = 1

if ctx.rest then
    data = ctx.rest .. data
end

while true do
    local last, behind = find(data, "\n\n", from, true)

    if not last then
        break
    end

    if sub(data, from, from + 5) == "data: " then
        local event = decode(sub(data, from + 6, last - 1))

        if event then
            local choice = event.choices and event.choices[1]
            local content = choice and choice.delta and choice.delta.content

            if type(content) == "string" then
                ctx.bytes = (ctx.bytes or 0) + #content
            end

            if type(event.usage) == "table" then
                ctx.tokens = event.usage.completion_tokens
            end
        end
    end

    from = behind + 1
end

ctx.rest = from <= #data and sub(data, from) or nil

if ngx.arg[2] then
    ngx.log(ngx.INFO, "counted ", ctx.bytes or 0, " bytes, ",
            ctx.tokens or "no", " tokens")
end
