-- The first part of the script that runs one batch of verbs, at once and as a whole: what is kept, and the order of
-- ready items. Redis runs it, together with leases.lua, verbs.lua and batch.lua.
--
-- What is kept, each key below the prefix `rpccluster:`
--   queue:NAME     a hash: counts, `ids` and `places` (the last given), paused, token (the highest seen)
--   items:NAME     a hash: id -> the fields of an item, packed        values:NAME  a hash: id -> its bytes
--   ready:NAME     a sorted set of the items that can be given out, by lane (priority) and place
--   group:…        a sorted set of the ready items of one group, of which the first alone stands in ready:NAME, and
--                  none while one is leased; the others are in blocked:NAME, too
--   fronts:NAME    a hash: group -> its item in ready:NAME, or `!` while one is leased
--   dead:NAME      a sorted set of the dead        ended:NAME:DAY  a hash: id -> the attempt that acked it, if not 1
--   put:SESSION, got:KEEPER:SESSION, dedup:…       what a repeat is answered with
--   lent:KEEPER:SESSION  a set of the items that a session has      sessions:KEEPER  the sessions that have had items
--   ending         a set of the keys of what was set aside, to be given back in pieces: ended_WHY:KEEPER:SESSION, a
--                  set of the items that a session has had, lost:KEEPER, one of the sessions of a keeper that is lost
--   keeper:KEEPER  a hash: epoch, number and reply of its last batch; how its clock differs, at which shift
--   due            a sorted set of all that happens at a time: leases, delays, expiries
--   keepers        a sorted set of when each keeper is lost, unless it shows itself before; ran: when a batch ran last
--   shift          what is added to the time of the server, after its clock was set
--   waiting:NAME, full:NAME, joining:NAME          sets of the keepers to wake; wake:KEEPER is the channel
--
-- Times are milliseconds of Redis's clock, and shift. A batch has a number: the last one of a keeper is not run again,
-- and is answered as before; an older one, which comes late over a lost connection, changes nothing.

local P = 'rpccluster:'
local VERSION = '1'
local LANE = 562949953421312 -- 2^49 places in each lane
local DAY = 86400000
local STEP = 5000 -- milliseconds by which a clock has to jump
local REPEATS = 16 -- gets of a session, the last of which are known
local PIECE = 1000 -- items that one verb, or the end of their time, concerns in one batch
local PLACE, ATTEMPT, COUNTED, PRIORITY, GROUP, EXPIRES = 1, 2, 3, 4, 5, 6 -- the fields of an item
local SIZE, STATE, KEEPER, SESSION, ERROR = 7, 8, 9, 10, 11
local READY, DELAYED, LEASED, DEAD = 'r', 'd', 'l', 'x'
local COUNTS = { 'ids', 'places', 'ready', 'delayed', 'leased', 'dead', 'bytes', 'paused' }

local call = redis.call
local keeper, epoch, number, grace, keepers_time, given_rules, batch = unpack(cmsgpack.unpack(ARGV[1]))
local time = call('TIME')
local shift = tonumber(call('GET', P .. 'shift') or 0)
local now = time[1] * 1000 + math.floor(time[2] / 1000) + shift
local queues, ready_names, room_names = {}, {}, {}
local no_memory = false

-- Queues ------------------------------------------------------------------------------------------------------------

local function queue(name)
    local q = queues[name]
    if q then
        return q
    end
    q = { name = name, key = P .. 'queue:' .. name }
    q.items, q.values, q.fronts = P .. 'items:' .. name, P .. 'values:' .. name, P .. 'fronts:' .. name
    q.front_set, q.blocked_set, q.dead_set = P .. 'ready:' .. name, P .. 'blocked:' .. name, P .. 'dead:' .. name
    local kept = call('HMGET', q.key, 'token', unpack(COUNTS))
    q.token, q.is_made = kept[1] or '', kept[2] and true
    for i, field in ipairs(COUNTS) do
        q[field] = tonumber(kept[i + 1] or 0)
    end
    local rules = cmsgpack.unpack(given_rules[name] or call('HGET', P .. 'rules', name))
    q.lease, q.max_attempts, q.max_size, q.max_bytes, q.expires, q.dedup_window = unpack(rules)
    queues[name] = q
    return q
end

local function make(q)
    if not q.is_made then
        q.is_made = true
        call('SADD', P .. 'queues', q.name)
    end
end

local function keep_queues()
    for name, q in pairs(queues) do
        local fields = { 'token', q.token }
        for _, field in ipairs(COUNTS) do
            fields[#fields + 1] = field
            fields[#fields + 1] = q[field]
        end
        if q.is_made then
            call('HSET', q.key, unpack(fields))
        end
    end
end

local function load(q, id)
    local packed = call('HGET', q.items, id)
    return packed and cmsgpack.unpack(packed)
end

local function save(q, id, item)
    call('HSET', q.items, id, cmsgpack.pack(item))
end

-- What is due at the same time goes by its id, which has leading zeros there.
local function due_member(kind, q, id)
    return kind .. ':' .. ('0'):rep(16 - #id) .. id .. ':' .. q.name
end

local function at(when, kind, q, id)
    call('ZADD', P .. 'due', when, due_member(kind, q, id))
end

local function not_at(kind, q, id)
    call('ZREM', P .. 'due', due_member(kind, q, id))
end

-- Keys of two names have the length of the first, so that no other two make the same key.
local function pair_key(kind, first, second)
    return P .. kind .. ':' .. #first .. ':' .. first .. ':' .. second
end

-- Items ready, and those of a group, of which the first alone stands in front ---------------------------------------

local function settle(q, group)
    local front = call('HGET', q.fronts, group)
    local members = pair_key('group', q.name, group)
    local first = call('ZRANGE', members, 0, 0, 'WITHSCORES')
    if front == '!' or front == (first[1] or false) then
        return
    end
    if front then
        call('ZADD', q.blocked_set, call('ZSCORE', q.front_set, front), front)
        call('ZREM', q.front_set, front)
    end
    if first[1] then
        call('ZREM', q.blocked_set, first[1])
        call('ZADD', q.front_set, first[2], first[1])
        call('HSET', q.fronts, group, first[1])
        ready_names[q.name] = true
    else
        call('HDEL', q.fronts, group)
    end
end

local function enter_ready(q, id, item)
    item[STATE] = READY
    q.ready = q.ready + 1
    local group = item[GROUP]
    if group then
        call('ZADD', pair_key('group', q.name, group), item[PLACE], id)
        call('ZADD', q.blocked_set, item[PLACE], id)
        settle(q, group)
    else
        call('ZADD', q.front_set, item[PLACE], id)
        ready_names[q.name] = true
    end
end

local function leave_ready(q, id, item)
    q.ready = q.ready - 1
    local was_in_front = call('ZREM', q.front_set, id) == 1
    local group = item[GROUP]
    if group then
        call('ZREM', pair_key('group', q.name, group), id)
        if was_in_front then
            call('HDEL', q.fronts, group)
        else
            call('ZREM', q.blocked_set, id)
        end
    end
end

local function join_end(q, item)
    q.places = q.places + 1
    item[PLACE] = (9 - item[PRIORITY]) * LANE + q.places
end

local function forget(q, id, item, acked_by)
    call('HDEL', q.items, id)
    call('HDEL', q.values, id)
    if item[EXPIRES] > 0 then
        not_at('x', q, id)
    end
    if acked_by ~= 1 and item[ATTEMPT] > 0 then
        local ended = pair_key('ended', q.name, '') .. math.floor(now / DAY)
        call('HSET', ended, id, acked_by)
        call('PEXPIRE', ended, 2 * DAY)
    end
end

local function leave_for_good(q, item)
    q.bytes = q.bytes - item[SIZE]
    room_names[q.name] = true
end
