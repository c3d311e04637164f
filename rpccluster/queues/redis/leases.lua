-- The second part of the script: leases, how they end, and whatever else happens at a time.

-- Sessions that have ended -------------------------------------------------------------------------------------------
--
-- One may have very many items, and Redis serves nobody else while they are given back. So its end only sets them
-- aside, and each batch gives a piece of them back. From its end on its leases are refused.

local ending = {} -- the keys of what is set aside
for _, key in ipairs(call('SMEMBERS', P .. 'ending')) do
    ending[key] = true
end
local left = PIECE -- of that, how much this batch may yet give back
local REASONS = { consumer = 'its consumer has gone', forgiven = 'its consumer has gone', keeper = 'its keeper has gone' }
local mine_lost = P .. 'lost:' .. keeper

local function ending_key(why, of_keeper, session)
    return pair_key('ended_' .. why, of_keeper, session)
end

local function set_aside(from, key)
    if ending[key] then
        call('SUNIONSTORE', key, key, from)
        call('UNLINK', from)
    elseif call('EXISTS', from) == 1 then
        call('RENAME', from, key)
        call('SADD', P .. 'ending', key)
        ending[key] = true
    end
end

local function end_session(why, of_keeper, session)
    local lent = pair_key('lent', of_keeper, session)
    local number = call('SCARD', lent)
    set_aside(lent, ending_key(why, of_keeper, session))
    call('DEL', pair_key('got', of_keeper, session))
    call('SREM', P .. 'sessions:' .. of_keeper, session)
    return number
end

-- Ends a session that this keeper has lost, and not been told of yet: what it is lent from now on is another matter.
local function end_lost(session)
    if ending[mine_lost] and call('SREM', mine_lost, session) == 1 then
        end_session('keeper', keeper, session)
    end
end

-- Why the lease of an item is over though nobody has given it back; nil if it is not.
local function why_over(q, id, item)
    if not next(ending) then
        return nil
    end
    local lost = P .. 'lost:' .. item[KEEPER]
    if ending[lost] and call('SISMEMBER', lost, item[SESSION]) == 1 then
        return 'keeper'
    end
    for why in pairs(REASONS) do
        local key = ending_key(why, item[KEEPER], item[SESSION])
        if ending[key] and call('SISMEMBER', key, id .. ':' .. q.name) == 1 then
            return why
        end
    end
end

-- Leases ------------------------------------------------------------------------------------------------------------

local function lend(q, id, item, session)
    end_lost(session)
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
    local why = why_over(q, id, item)
    if why then
        call('SREM', ending_key(why, item[KEEPER], item[SESSION]), id .. ':' .. q.name)
    end
    item[KEEPER], item[SESSION] = false, false
    if item[GROUP] then
        call('HDEL', q.fronts, item[GROUP])
    end
end

local function leased(q, id, attempt)
    local item = load(q, id)
    return item and item[STATE] == LEASED and item[ATTEMPT] == attempt and not why_over(q, id, item) and item
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

-- Takes some of what is set aside under a key.
local function take_some(key)
    if left <= 0 then
        return {}
    end
    local some = call('SPOP', key, left)
    left = left - #some
    if call('EXISTS', key) == 0 then
        call('SREM', P .. 'ending', key)
        ending[key] = nil
    end
    return some
end

local function keys_of_ending(form)
    local found = {}
    for key in pairs(ending) do
        local name = key:match(form)
        if name then
            found[#found + 1] = { key, name }
        end
    end
    return found
end

local function give_ended_back()
    for _, found in ipairs(keys_of_ending('^' .. P .. 'ended_(%a+):')) do
        local key, why = unpack(found)
        for _, member in ipairs(take_some(key)) do
            local id, name = member:match('^(%d+):(.*)$')
            local q = queue(name)
            local item = load(q, id)
            if item and item[STATE] == LEASED and key == ending_key(why, item[KEEPER], item[SESSION]) then
                give_back(q, id, item, why == 'consumer', 0, REASONS[why])
            end
        end
    end
end

-- Goes on with what is set aside: items, and sessions of keepers that are lost, whose items come next.
local function go_on_ending()
    give_ended_back()
    for _, found in ipairs(keys_of_ending('^' .. P .. 'lost:(.*)$')) do
        local key, lost = unpack(found)
        for _, session in ipairs(take_some(key)) do
            end_session('keeper', lost, session)
        end
    end
    give_ended_back()
end

-- What happens at a time --------------------------------------------------------------------------------------------

local happens = {}

function happens.l(q, id)
    local item = load(q, id)
    local why = why_over(q, id, item)
    give_back(q, id, item, not why or why == 'consumer', 0, why and REASONS[why] or 'its lease was over')
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
    set_aside(P .. 'sessions:' .. lost, P .. 'lost:' .. lost)
    call('PEXPIRE', P .. 'keeper:' .. lost, 30 * DAY)
end

local function run_due()
    for _, lost in ipairs(call('ZRANGEBYSCORE', P .. 'keepers', '-inf', now)) do
        call('ZREM', P .. 'keepers', lost)
        lose_keeper(lost)
    end
    go_on_ending()
    for _, member in ipairs(call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, PIECE)) do
        local kind, id, name = member:match('^(%a):0*(%d+):(.*)$')
        if call('ZREM', P .. 'due', member) == 1 then -- else an earlier one has ended it
            happens[kind](queue(name), id)
        end
    end
end

-- Lets the keepers have the time that they had not: nobody has run a batch, so Redis was away, or all of them were.
local function allow_for_silence()
    local silence = now - (call('GET', P .. 'ran') or now)
    if silence > grace / 2 then
        for _, known in ipairs(call('ZRANGE', P .. 'keepers', 0, -1)) do
            call('ZINCRBY', P .. 'keepers', silence, known)
        end
    end
    call('SET', P .. 'ran', now)
end
