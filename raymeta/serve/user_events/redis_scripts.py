"""What Redis runs for `redis`: one Lua script a change, each done whole before anything else.

Keys of a user, in this order: 1 hash, 2 events, 3 taken ids, 4 seen items, 5 rankings, 6 used
idempotency keys, 7 the tenant's list of users, 8 the tenants, 9 what the script adds. Times are
passed in, so that a test can move the clock. A user's id and tenant are read off the key names.
"""

_FORGET = """
local now, ttl = tonumber(ARGV[1]), tonumber(ARGV[2])
local function field(name, default)
  return tonumber(redis.call('HGET', KEYS[1], name) or default)
end
local function forgotten()
  return ttl >= 0 and field('touched', now) < now - ttl
end
local function user_id()
  local head = string.sub(KEYS[7], 1, -6) .. 'u:'
  return string.sub(KEYS[1], #head + 1)
end
local function clear()
  for _, key in ipairs(redis.call('SMEMBERS', KEYS[6])) do redis.call('DEL', key) end
  redis.call('DEL', KEYS[2], KEYS[4], KEYS[5], KEYS[6])
end
"""

_LOCK = (
    _FORGET
    + """
if forgotten() then
  clear()
  redis.call('DEL', KEYS[1], KEYS[3])
end
if redis.call('HSETNX', KEYS[1], 'epoch', now) == 1 then
  redis.call('ZADD', KEYS[7], 0, user_id())
  -- "<prefix>:<tenant>:users" less both ends
  redis.call('SADD', KEYS[8], string.sub(KEYS[7], #KEYS[8] - 6, -7))
end
redis.call('HSET', KEYS[1], 'touched', now)
"""
)

_APPEND = (
    _LOCK
    + """
local received, retained, answer_ttl = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local body, count = ARGV[6], tonumber(ARGV[7])
if body ~= '' then
  local stored = redis.call('GET', KEYS[9])
  local answer = stored and cjson.decode(stored)
  if answer and answer[7] >= now - tonumber(answer_ttl) then
    if answer[1] ~= body or answer[2] ~= KEYS[1] then return {-2} end
    return {answer[3], answer[4], answer[5], answer[6], 1}
  end
end
local erased_ms = field('erased', -1)
local fresh, taken, duplicates, erased = {}, {}, 0, 0
for n = 1, count do
  local at = 7 + (n - 1) * 6
  local id, digest, time = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local known = taken[id] or redis.call('HGET', KEYS[3], id)
  if known then
    if string.sub(known, 1, 8) ~= digest then return {-1, n} end
    duplicates = duplicates + 1
  elseif math.min(time, received) <= erased_ms then
    erased = erased + 1
  else
    taken[id] = digest
    fresh[#fresh + 1] = at
  end
end
local arrivals, number = field('arrivals', 0), field('number', 0)
for _, at in ipairs(fresh) do
  arrivals = arrivals + 1
  redis.call('HSET', KEYS[3], ARGV[at + 1], ARGV[at + 2] .. ARGV[1])
  if ARGV[at + 4] ~= '' then redis.call('SADD', KEYS[4], ARGV[at + 4]) end
  local member = ARGV[at + 5] .. string.format('%015d', arrivals) .. '\\0' .. ARGV[at + 6]
  redis.call('ZADD', KEYS[2], ARGV[at + 3], member)
end
if #fresh > 0 then
  number = number + 1
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -(retained + 1))
  redis.call('HSET', KEYS[1], 'arrivals', arrivals, 'number', number)
  redis.call('HINCRBY', KEYS[1], 'events', #fresh)
end
if body ~= '' then
  local answer = cjson.encode({body, KEYS[1], number, #fresh, duplicates, erased, now})
  redis.call('SET', KEYS[9], answer, 'PX', answer_ttl)
  redis.call('SADD', KEYS[6], KEYS[9])
end
return {number, #fresh, duplicates, erased, 0}
"""
)

_READ = (
    _FORGET
    + """
local catalogue = redis.call('GET', KEYS[9]) or '0'
if redis.call('EXISTS', KEYS[1]) == 0 or forgotten() then
  return {0, '0', catalogue, 0, 0, '{}', {}, {}}
end
local features = redis.call('HGET', KEYS[1], 'features') or '{}'
return {
  field('number', 0), redis.call('HGET', KEYS[1], 'epoch'), catalogue, field('events', 0),
  field('generation', 0), features, redis.call('ZRANGE', KEYS[2], -tonumber(ARGV[3]), -1),
  redis.call('SMEMBERS', KEYS[4])
}
"""
)

_VERSION = (
    _FORGET
    + """
local catalogue = redis.call('GET', KEYS[2]) or '0'
if redis.call('EXISTS', KEYS[1]) == 0 or forgotten() then return {0, '0', catalogue} end
return {field('number', 0), redis.call('HGET', KEYS[1], 'epoch'), catalogue}
"""
)

# the features stay text: cjson would turn an empty list into an object, and 1.0 into 1
_PUT_FEATURES = (
    _LOCK
    + """
local features = {}
if ARGV[3] == '0' then
  local flat = redis.call('HGET', KEYS[1], 'feature_list')
  if flat then features = cjson.decode(flat) end
end
for n = 4, #ARGV, 2 do
  if ARGV[n + 1] == 'null' then features[ARGV[n]] = nil else features[ARGV[n]] = ARGV[n + 1] end
end
local parts = {}
for name, value in pairs(features) do parts[#parts + 1] = cjson.encode(name) .. ':' .. value end
redis.call('HSET', KEYS[1], 'features', '{' .. table.concat(parts, ',') .. '}')
redis.call('HSET', KEYS[1], 'feature_list', cjson.encode(features))
return redis.call('HINCRBY', KEYS[1], 'number', 1)
"""
)

_LOG_RANKING = (
    _LOCK
    + """
redis.call('RPUSH', KEYS[5], ARGV[3])
redis.call('LTRIM', KEYS[5], -tonumber(ARGV[4]), -1)
return 1
"""
)

_RANKINGS = (
    _FORGET
    + """
if forgotten() then return {} end
return redis.call('LRANGE', KEYS[5], 0, -1)
"""
)

_ERASE = (
    _LOCK
    + """
if tonumber(ARGV[3]) <= field('erased', -1) then
  return {field('generation', 0), field('number', 0), 0}
end
local before = field('events', 0)
clear()
redis.call('HDEL', KEYS[1], 'features', 'feature_list', 'events', 'arrivals')
redis.call('HSET', KEYS[1], 'erased', ARGV[3])
local generation = redis.call('HINCRBY', KEYS[1], 'generation', 1)
return {generation, redis.call('HINCRBY', KEYS[1], 'number', 1), before}
"""
)

_SWEEP_USER = (
    _FORGET
    + """
local oldest, gone = tonumber(ARGV[3]), 0
local plain = redis.call('HGET', KEYS[1], 'features') or '{}'
local empty = field('events', 0) == 0 and plain == '{}' and redis.call('LLEN', KEYS[5]) == 0
if forgotten() or (empty and field('touched', now) < oldest) then
  clear()
  redis.call('DEL', KEYS[1], KEYS[3])
  redis.call('ZREM', KEYS[7], user_id())
  return 1
end
local taken = redis.call('HGETALL', KEYS[3])
for n = 1, #taken, 2 do
  if tonumber(string.sub(taken[n + 1], 9)) < oldest then
    redis.call('HDEL', KEYS[3], taken[n])
    gone = gone + 1
  end
end
return gone
"""
)

_USER_IDS = """
local limit, now, ttl = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local found, from = {}, ARGV[1]
while #found < limit do
  local ids = redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, 1000)
  for _, id in ipairs(ids) do
    local row = redis.call('HMGET', KEYS[2] .. id, 'touched', 'events', 'features')
    local known = tonumber(row[2] or 0) > 0 or (row[3] or '{}') ~= '{}'
    local alive = ttl < 0 or tonumber(row[1] or now) >= now - ttl
    if known and alive and #found < limit then found[#found + 1] = id end
  end
  if #ids < 1000 then break end
  from = '(' .. ids[#ids]
end
return found
"""

_PUT_ITEMS = """
local version = redis.call('INCR', KEYS[1])
for n = 1, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[n], ARGV[n + 1])
  redis.call('ZADD', KEYS[3], version, ARGV[n])
end
return version
"""

_ITEM_CHANGES = """
local rows = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES')
local out = {}
for n = 1, #rows, 2 do
  out[#out + 1] = rows[n]
  out[#out + 1] = rows[n + 1]
  out[#out + 1] = redis.call('HGET', KEYS[2], rows[n])
end
return out
"""

SCRIPTS: dict[str, str] = {
    "append": _APPEND,
    "read": _READ,
    "version": _VERSION,
    "put_features": _PUT_FEATURES,
    "log_ranking": _LOG_RANKING,
    "rankings": _RANKINGS,
    "erase": _ERASE,
    "sweep_user": _SWEEP_USER,
    "user_ids": _USER_IDS,
    "put_items": _PUT_ITEMS,
    "item_changes": _ITEM_CHANGES,
}
"""By the name of the operation."""
