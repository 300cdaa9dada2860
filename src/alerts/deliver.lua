-- One event, wholly or not at all, and never twice. 0: seen before, not told; 1: told; 2: not this node's to end; 3: shown, not told;
-- 4: seen before, and told.
-- KEYS: active, events, delivered
-- ARGV: seq, reporter, field, alert ('' ends it), event ('' shows it only), channel, kept events, kind, severity

-- Before anything is changed: Redis takes nothing back of a script that fails, and does not name the key.
for at, kind in ipairs({ 'hash', 'stream', 'string' }) do
    local found = redis.pcall('TYPE', KEYS[at]).ok
    if found and found ~= 'none' and found ~= kind then
        return redis.error_reply('WRONGTYPE ' .. KEYS[at])
    end
end

local seq = tonumber(ARGV[1])
local delivered = tonumber(redis.call('GET', KEYS[3]) or '0') or 0
if delivered >= seq then
    -- The answer was lost: the receivers beside Redis depend on what it was.
    for _, entry in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1000)) do
        local fields = entry[2]
        if fields[4] == ARGV[2] and fields[6] == ARGV[1] then
            return 4
        end
    end
    return 0
end
local readable, standing = pcall(cjson.decode, redis.call('HGET', KEYS[1], ARGV[3]) or '')
if not readable or type(standing) ~= 'table' then
    standing = nil
end
local ends = ARGV[4] == ''
local tells = ARGV[5] ~= ''
if ends then
    -- Another node may have taken the alert over meanwhile.
    if standing and standing.reporter ~= ARGV[2] then
        redis.call('SET', KEYS[3], ARGV[1])
        return 2
    end
    redis.call('HDEL', KEYS[1], ARGV[3])
else
    -- Two nodes may judge the cluster for a moment: what one has raised is no news from the other.
    if ARGV[8] == 'raised' and standing and standing.reporter ~= ARGV[2] and standing.severity == ARGV[9]
        and not standing.hidden and not standing.silenced then
        tells = false
    end
    redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
end
if not tells then
    redis.call('SET', KEYS[3], ARGV[1])
    return 3
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[7], '*', 'event', ARGV[5], 'reporter', ARGV[2], 'seq', ARGV[1])
redis.call('SET', KEYS[3], ARGV[1])
redis.call('PUBLISH', ARGV[6], ARGV[5])
return 1
