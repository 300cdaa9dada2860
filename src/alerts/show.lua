-- Changes alerts that stand; one that is not there any more is not brought back.
-- KEYS: active
-- ARGV: field, alert, field, alert, …
local changed = 0
for at = 1, #ARGV, 2 do
    if redis.call('HEXISTS', KEYS[1], ARGV[at]) == 1 then
        redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
        changed = changed + 1
    end
end
return changed
