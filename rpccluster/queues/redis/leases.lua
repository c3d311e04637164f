-- The second part of the script: leases, how they end, and whatever else happens at a time.

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
    for _, lost in ipairs(call('ZRANGEBYSCORE', P .. 'keepers', '-inf', now)) do
        call('ZREM', P .. 'keepers', lost)
        lose_keeper(lost)
    end
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
