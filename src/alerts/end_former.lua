-- Ends an alert of a cluster's former name, once.
-- KEYS: active, events
-- ARGV: field, event, channel, kept events, reporter
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
    return 0
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'event', ARGV[2], 'reporter', ARGV[5], 'seq', '0')
redis.call('PUBLISH', ARGV[3], ARGV[2])
return 1
