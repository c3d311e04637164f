-- The last part of the script: runs the batch, wakes other keepers, keeps the reply for a repeat.

-- Puts the values into an answer that names items. Only the names are kept for a repeat; an item may be gone by now.
local function with_values(answer)
    local named = type(answer[2]) == 'table' and answer[2][1] == 'items' and answer[2]
    if not named then
        return answer
    end
    local _, name, ids, numbers, errors = unpack(named)
    local items = {}
    for i, id in ipairs(ids) do
        local value = call('HGET', P .. 'values:' .. name, id)
        if value then
            items[#items + 1] = { id, numbers[i], value, errors and errors[i] }
        end
    end
    return { '', items }
end

local function full_reply(reply)
    for i, answer in ipairs(reply[2]) do
        reply[2][i] = with_values(answer)
    end
    return cmsgpack.pack(reply)
end

local function wake(kind, name, sign)
    local key = P .. kind .. ':' .. name
    for _, other in ipairs(call('SMEMBERS', key)) do
        if other ~= keeper then
            call('PUBLISH', P .. 'wake:' .. other, sign .. name)
        end
    end
    call('DEL', key)
end

-- Wakes the keepers that wait for what has changed. Returns the names of the queues for this one.
local function wake_waiting()
    local ready, room = {}, {}
    for name in pairs(ready_names) do
        local q = queue(name)
        if q.paused == 0 and call('ZCARD', q.front_set) > 0 then
            wake('waiting', name, 'r')
            ready[#ready + 1] = name
        end
    end
    for name in pairs(room_names) do
        local q = queue(name)
        wake('full', name, 'f')
        if q.ready + q.delayed + q.leased == 0 then
            wake('joining', name, 'f')
        end
        room[#room + 1] = name
    end
    return ready, room
end

local mine = P .. 'keeper:' .. keeper
local kept = call('HMGET', mine, 'epoch', 'number', 'reply', 'differs', 'shift')
local last_epoch, last_number = tonumber(kept[1] or 0), tonumber(kept[2] or 0)
local version = call('GET', P .. 'version')
if version and version ~= VERSION then
    return cmsgpack.pack({ 'version', version, VERSION })
elseif batch == 'begin' then
    call('SET', P .. 'version', VERSION)
    call('HSET', mine, 'epoch', last_epoch + 1, 'number', 0)
    call('HDEL', mine, 'differs')
    local with_items = {}
    for _, session in ipairs(call('SMEMBERS', P .. 'sessions:' .. keeper)) do
        if call('EXISTS', pair_key('lent', keeper, session)) == 1 then
            with_items[#with_items + 1] = session
        end
    end
    return cmsgpack.pack({ 'begun', last_epoch + 1, with_items })
elseif epoch < last_epoch then
    return cmsgpack.pack({ 'superseded' })
elseif batch == 'outcome' then -- of the batch of this number, which from now on is late if it has not run
    if epoch == last_epoch and number == last_number then
        return kept[3]
    end
    call('DEL', P .. 'probe')
    call('HSET', mine, 'epoch', epoch, 'number', number + 1)
    return cmsgpack.pack({ 'none' })
elseif epoch == last_epoch and number < last_number then
    return cmsgpack.pack({ 'late' })
elseif epoch == last_epoch and number == last_number then
    return full_reply(cmsgpack.unpack(kept[3]))
end

-- The first write of a script is refused where memory is out, and no later one: so puts are refused, all else runs.
local probe = redis.pcall('SETRANGE', P .. 'probe', 0, '')
if type(probe) == 'table' and probe.err then
    if not probe.err:find('OOM', 1, true) then
        return probe
    end
    no_memory = true
    call('DEL', P .. 'probe')
end

-- The keeper's clock cannot be set. If Redis's has jumped against it, the shift takes the jump back, unless another
-- keeper has done that.
local jump = kept[4] and tonumber(kept[5]) == shift and now - keepers_time - kept[4] or 0
if math.abs(jump) > STEP then
    now, shift = now - jump, shift - jump
    call('SET', P .. 'shift', shift)
end
call('HSET', mine, 'differs', now - keepers_time, 'shift', shift)

allow_for_silence()
if call('ZADD', P .. 'keepers', now + grace, keeper) == 1 then
    call('PERSIST', mine)
end
for name, packed in pairs(given_rules) do
    if call('HGET', P .. 'rules', name) ~= packed then
        call('HSET', P .. 'rules', name, packed)
    end
end
run_due()
local answers = {}
for i, verb in ipairs(batch) do
    answers[i] = verbs[verb[1]](unpack(verb, 2))
end
local ready, room = wake_waiting()
keep_queues()
local next_at = next(ending) and now or now + grace
for _, times in ipairs({ 'due', 'keepers' }) do
    local first = call('ZRANGE', P .. times, 0, 0, 'WITHSCORES')
    next_at = math.min(next_at, first[2] or next_at)
end
local reply = { 'done', answers, ready, room, math.max(0, next_at - now) }
call('HSET', mine, 'epoch', epoch, 'number', number, 'reply', cmsgpack.pack(reply))
return full_reply(reply)
