-- The first third of the script that runs one batch of verbs, at once and as a whole: what is kept, and how an item
-- goes from one state to another. Redis runs it, together with verbs.lua and batch.lua.
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
--   keeper:KEEPER  a hash: epoch, number and reply of its last batch; how its clock differs, at which shift
--   due            a sorted set of all that happens at a time: leases, delays, expiries, keepers that fall silent
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
local MOST_BYTES = 16777216 -- values in one answer, beyond which a get returns fewer items
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

-- Leases ------------------------------------------------------------------------------------------------------------

local function lend(q, id, item, session)
    leave_ready(q, id, item)
    if item[GROUP] then
        call('HSET', q.fronts, item[GROUP], '!')
    end
    q.leased = q.leased + 1
    item[STATE], item[KEEPER], item[SESSION] = LEASED, keeper, session
    item[ATTEMPT] = item[ATTEMPT] + 1
    save(q, id, item)
    at(now + q.lease, 'l', q, id)
    call('SADD', pair_key('lent', keeper, session), id .. ':' .. q.name)
end

local function end_lease(q, id, item)
    q.leased = q.leased - 1
    not_at('l', q, id)
    call('SREM', pair_key('lent', item[KEEPER], item[SESSION]), id .. ':' .. q.name)
    item[KEEPER], item[SESSION] = false, false
    if item[GROUP] then
        call('HDEL', q.fronts, item[GROUP])
    end
end

local function leased(q, id, attempt)
    local item = load(q, id)
    return item and item[STATE] == LEASED and item[ATTEMPT] == attempt and item
end

local function give_back(q, id, item, counts, delay, reason, is_dead)
    end_lease(q, id, item)
    item[ERROR] = reason ~= '' and reason or item[ERROR]
    if counts then
        item[COUNTED] = item[COUNTED] + 1
    end
    if item[EXPIRES] > 0 and item[EXPIRES] <= now then
        forget(q, id, item, 0)
        leave_for_good(q, item)
    else
        if is_dead or item[COUNTED] >= q.max_attempts then
            item[STATE] = DEAD
            q.dead = q.dead + 1
            call('ZADD', q.dead_set, id, id)
            leave_for_good(q, item)
        elseif delay > 0 then
            item[STATE] = DELAYED
            q.delayed = q.delayed + 1
            at(now + delay, 'd', q, id)
        else
            enter_ready(q, id, item)
        end
        save(q, id, item)
    end
    if item[GROUP] then
        settle(q, item[GROUP])
    end
end

-- Whether the item was acked by this attempt. Of most items nothing is kept: they were acked by their first.
local function was_acked(q, id, attempt)
    if tonumber(id) > q.ids or tonumber(id) < 1 or call('HEXISTS', q.items, id) == 1 then
        return false
    end
    for _, day in ipairs({ 0, 1 }) do
        local by = call('HGET', pair_key('ended', q.name, '') .. math.floor(now / DAY) - day, id)
        if by then
            return tonumber(by) == attempt
        end
    end
    return attempt == 1
end

local function ack(q, ids, attempts)
    local lost = {}
    for i, id in ipairs(ids) do
        local item = leased(q, id, attempts[i])
        if item then
            end_lease(q, id, item)
            forget(q, id, item, attempts[i])
            leave_for_good(q, item)
            if item[GROUP] then
                settle(q, item[GROUP])
            end
        elseif not was_acked(q, id, attempts[i]) then
            lost[#lost + 1] = id
        end
    end
    return lost
end

local function end_session(of_keeper, session, counts, reason)
    local lent = pair_key('lent', of_keeper, session)
    local ended = call('SMEMBERS', lent)
    table.sort(ended)
    for _, member in ipairs(ended) do
        local id, name = member:match('^(%d+):(.*)$')
        local q = queue(name)
        give_back(q, id, load(q, id), counts, 0, reason)
    end
    call('DEL', lent, pair_key('got', of_keeper, session))
    call('SREM', P .. 'sessions:' .. of_keeper, session)
    return #ended
end

-- What happens at a time --------------------------------------------------------------------------------------------

local happens = {}

function happens.l(q, id)
    give_back(q, id, load(q, id), true, 0, 'its lease was over')
end

function happens.d(q, id)
    local item = load(q, id)
    q.delayed = q.delayed - 1
    join_end(q, item)
    enter_ready(q, id, item)
    save(q, id, item)
end

-- Removes an item that nobody has leased.
local function remove(q, id, item)
    local state = item[STATE]
    if state == READY then
        leave_ready(q, id, item)
    elseif state == DELAYED then
        q.delayed = q.delayed - 1
        not_at('d', q, id)
    else
        q.dead = q.dead - 1
        q.bytes = q.bytes + item[SIZE]
        call('ZREM', q.dead_set, id)
    end
    forget(q, id, item, 0)
    leave_for_good(q, item)
    if item[GROUP] then
        settle(q, item[GROUP])
    end
end

function happens.x(q, id)
    local item = load(q, id)
    if item and (item[STATE] == READY or item[STATE] == DELAYED) then
        remove(q, id, item)
    end
end

local function lose_keeper(lost)
    for _, session in ipairs(call('SMEMBERS', P .. 'sessions:' .. lost)) do
        end_session(lost, session, false, 'its keeper has gone')
    end
    call('PEXPIRE', P .. 'keeper:' .. lost, 30 * DAY)
end

local function run_due()
    for _, member in ipairs(call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, PIECE)) do
        local kind, id, name = member:match('^(%a):0*([^:]*):(.*)$')
        if call('ZREM', P .. 'due', member) == 1 then -- else an earlier one has ended it
            if kind == 'k' then
                lose_keeper(name)
            else
                happens[kind](queue(name), id)
            end
        end
    end
end
