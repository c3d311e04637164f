-- The third part of the script: the verbs. Each returns {'', …}, or the name of an error and its details.

local verbs = {}

local function no_room(q, number, bytes)
    if no_memory then
        return { 'memory' }
    end
    local present = q.ready + q.delayed + q.leased
    if present + number > q.max_size then
        call('SADD', P .. 'full:' .. q.name, keeper)
        return { 'full', present, q.max_size }
    elseif q.bytes + bytes > q.max_bytes then
        call('SADD', P .. 'full:' .. q.name, keeper)
        return { 'bytes', q.bytes, q.max_bytes }
    end
end

function verbs.put(name, values, session, seq, delay, priority, expires, dedup, group, token)
    local q = queue(name)
    local put = session and P .. 'put:' .. session
    local known = put and call('GET', put)
    if known then
        local last, first, count = unpack(cmsgpack.unpack(known))
        if last == seq then
            return { '', first, count }
        elseif seq < last then
            return { 'past', last }
        end
    end
    local function answer(first, count)
        if put then
            call('SET', put, cmsgpack.pack({ seq, first, count }), 'PX', DAY)
        end
        return { '', first, count }
    end
    if token and token < q.token then
        return { 'stale', q.token }
    end
    make(q)
    q.token = token or q.token
    local dedup_key = dedup and pair_key('dedup', name, dedup)
    local twin = dedup_key and call('GET', dedup_key)
    twin = twin and cmsgpack.unpack(twin)
    twin = twin and twin[3] > now and twin
    local bytes = 0
    if not twin then
        for _, value in ipairs(values) do
            bytes = bytes + #value
        end
        local refused = no_room(q, #values, bytes)
        if refused then
            return refused
        end
    end
    if twin then
        return answer(twin[1], twin[2])
    end
    local first = q.ids + 1
    local ends = expires or q.expires
    ends = ends > 0 and now + ends or 0
    for _, value in ipairs(values) do
        q.ids = q.ids + 1
        local id = q.ids .. ''
        local item = { 0, 0, 0, priority, group, ends, #value, READY, false, false, '' }
        call('HSET', q.values, id, value)
        if delay > 0 then
            item[STATE] = DELAYED
            q.delayed = q.delayed + 1
            at(now + delay, 'd', q, id)
        else
            join_end(q, item)
            enter_ready(q, id, item)
        end
        if ends > 0 then
            at(ends, 'x', q, id)
        end
        save(q, id, item)
    end
    q.bytes = q.bytes + bytes
    if dedup_key and q.dedup_window > 0 then
        call('SET', dedup_key, cmsgpack.pack({ first, #values, now + q.dedup_window }), 'PX', q.dedup_window)
    end
    return answer(first, #values)
end

-- Of the items that the get with this number was answered with, those that are leased still.
local function still_held(q, known)
    local taken, tries = {}, {}
    if known then
        local of, ids, attempts = unpack(cmsgpack.unpack(known))
        for i, id in ipairs(of == q.name and ids or {}) do
            if leased(q, id, attempts[i]) then
                taken[#taken + 1], tries[#tries + 1] = id, attempts[i]
            end
        end
    end
    return taken, tries
end

function verbs.get(name, session, n, seq, ids, attempts, most)
    local q = queue(name)
    local got = pair_key('got', keeper, session)
    local lost = ack(q, ids, attempts)
    if #lost > 0 then
        return { 'lost', lost }
    end
    local taken, tries = still_held(q, seq and call('HGET', got, seq))
    if #taken > 0 then
        return { '', { 'items', name, taken, tries } }
    end
    local bytes, looked = 0, q.paused == 0
    while looked and #taken < n and (#taken == 0 or bytes < most) do
        looked = false
        for _, id in ipairs(call('ZRANGE', q.front_set, 0, math.min(n - #taken, PIECE) - 1)) do
            local item = load(q, id)
            looked = true
            if item[EXPIRES] > 0 and item[EXPIRES] <= now then
                remove(q, id, item)
            elseif #taken == 0 or bytes + item[SIZE] <= most then
                lend(q, id, item, session)
                taken[#taken + 1], tries[#tries + 1] = id, item[ATTEMPT]
                bytes = bytes + item[SIZE]
            else
                bytes = most -- it stays where it is, and so do those behind it
                break
            end
        end
    end
    if #taken > 0 then
        ready_names[name] = true -- there may be more
        call('SADD', P .. 'sessions:' .. keeper, session)
        if seq then
            if call('HLEN', got) > REPEATS then
                call('DEL', got)
            end
            call('HSET', got, seq, cmsgpack.pack({ name, taken, tries }))
            call('PEXPIRE', got, DAY)
        end
    else
        call('SADD', P .. 'waiting:' .. name, keeper)
    end
    return { '', { 'items', name, taken, tries } }
end

function verbs.ack(name, ids, attempts, token)
    local q = queue(name)
    if token and token < q.token then
        return { 'stale', q.token }
    end
    if token then
        make(q)
        q.token = token
    end
    local lost = ack(q, ids, attempts)
    return #lost > 0 and { 'lost', lost } or { '' }
end

function verbs.nack(name, id, attempt, delay, reason, is_dead)
    local q = queue(name)
    local item = leased(q, id, attempt)
    if not item then
        return { 'lost', { id } }
    end
    give_back(q, id, item, true, delay, reason, is_dead)
    return { '' }
end

-- Gives back what a get has taken whose answer nobody got.
function verbs.undo(name, ids, attempts)
    local q = queue(name)
    for i, id in ipairs(ids) do
        local item = leased(q, id, attempts[i])
        if item then
            give_back(q, id, item, false, 0, '')
        end
    end
    return { '' }
end

function verbs.touch(name, id, attempt)
    local q = queue(name)
    if not leased(q, id, attempt) then
        return { 'lost', { id } }
    end
    at(now + q.lease, 'l', q, id)
    return { '' }
end

function verbs.peek(name, n, most)
    local q = queue(name)
    n = math.min(n, PIECE)
    local found, ids, tries, bytes = {}, {}, {}, 0
    for _, set in ipairs({ q.front_set, q.blocked_set }) do
        local members = n > 0 and call('ZRANGE', set, 0, n - 1, 'WITHSCORES') or {}
        for i = 1, #members, 2 do
            found[#found + 1] = { tonumber(members[i + 1]), members[i] }
        end
    end
    table.sort(found, function(one, other)
        return one[1] < other[1]
    end)
    for i = 1, math.min(n, #found) do
        local item = load(q, found[i][2])
        bytes = bytes + item[SIZE]
        if i > 1 and bytes > most then
            break
        end
        ids[i], tries[i] = found[i][2], item[ATTEMPT]
    end
    return { '', { 'items', name, ids, tries } }
end

function verbs.dead(name, n, most)
    local q = queue(name)
    local ids, attempts, errors, bytes = {}, {}, {}, 0
    for i, id in ipairs(n > 0 and call('ZRANGE', q.dead_set, 0, math.min(n, PIECE) - 1) or {}) do
        local item = load(q, id)
        bytes = bytes + item[SIZE] + #item[ERROR]
        if i > 1 and bytes > most then
            break
        end
        ids[i], attempts[i], errors[i] = id, item[COUNTED], item[ERROR]
    end
    return { '', { 'items', name, ids, attempts, errors } }
end

-- Of these two verbs a batch does a piece, and the engine asks again while there is more.
function verbs.retry(name, only)
    local q = queue(name)
    local count = 0
    for _, id in ipairs(only and { only } or call('ZRANGE', q.dead_set, 0, PIECE - 1)) do
        if call('ZREM', q.dead_set, id) == 1 then
            local item = load(q, id)
            q.dead = q.dead - 1
            q.bytes = q.bytes + item[SIZE]
            item[COUNTED], item[ERROR] = 0, ''
            join_end(q, item)
            enter_ready(q, id, item)
            save(q, id, item)
            count = count + 1
        end
    end
    return { '', count, not only and q.dead > 0 }
end

function verbs.purge(name, cursor)
    local q = queue(name)
    local count = 0
    local scanned = call('HSCAN', q.items, cursor, 'COUNT', PIECE)
    for i = 1, #scanned[2], 2 do
        local id = scanned[2][i]
        local item = load(q, id)
        if item and item[STATE] ~= LEASED then
            remove(q, id, item)
            count = count + 1
        end
    end
    return { '', count, scanned[1] ~= '0' and scanned[1] }
end

function verbs.stats(name)
    local q = queue(name)
    call('SADD', P .. 'joining:' .. name, keeper)
    return { '', { q.ready, q.delayed, q.leased, q.dead, q.bytes, q.paused } }
end

function verbs.pause(name)
    make(queue(name))
    queue(name).paused = 1
    return { '' }
end

function verbs.resume(name)
    make(queue(name))
    queue(name).paused = 0
    ready_names[name] = true
    return { '' }
end

function verbs.list()
    return { '', call('SMEMBERS', P .. 'queues') }
end

function verbs.end_session(session, counts)
    end_lost(session)
    local number = end_session(counts and 'consumer' or 'forgiven', keeper, session)
    give_ended_back()
    return { '', number }
end
