/* Which call comes next, and when one is done: slots, msgids, pacing. */
#include <stdlib.h>

#include "generator.h"

void lay_out_slots(generator *all)
{
    for (uint32_t k = 0; k < all->kind_count; k++) {
        all->kinds[k].first_slot = all->slot_count;
        all->slot_count += all->kinds[k].count * all->kinds[k].slots;
    }
    all->slots = calloc(all->slot_count, sizeof *all->slots);
    for (uint32_t k = 0; k < all->kind_count; k++) {
        call_kind *kind = &all->kinds[k];
        for (uint32_t i = 0; i < kind->count * kind->slots; i++) {
            slot *one = &all->slots[kind->first_slot + i];
            *one = (slot){.kind = kind, .connection = kind->first + i % kind->count, .msgid = kind->first_slot + i};
            connection *its = &all->connections[one->connection];
            its->queue_size++;
            its->is_deaf = kind->is_deaf;
            its->piece = kind->piece;
            its->piece_interval = kind->piece_interval;
        }
    }
    for (uint32_t c = 0; c < all->connection_count; c++)
        all->connections[c].queue = calloc(all->connections[c].queue_size + 1, sizeof(uint32_t));
}

bool may_issue(const generator *all, const call_kind *kind)
{
    return all->is_issuing && (kind->limit == 0 || kind->issued < kind->limit);
}

/* Queue the slot's next call. A paced one counts from when it was due, not from when it could be sent. */
void issue(generator *all, slot *one, uint64_t started_at)
{
    char head[HEAD_MAX];
    connection *its = &all->connections[one->connection];
    bool is_last = one->msgid > UINT32_MAX - all->slot_count;
    one->msgid = is_last ? (uint32_t)(one - all->slots) : one->msgid + all->slot_count;
    one->length = all->wire->write_head(head, one->msgid, one->kind->tail_length) + one->kind->tail_length;
    one->started_at = started_at;
    one->is_open = true;
    one->kind->issued++;
    all->open++;
    its->queue[(its->queue_first + its->queued++) % its->queue_size] = (uint32_t)(one - all->slots);
}

/* Count a call whose reply is whole and right, and let the next one follow. */
void finish(generator *all, slot *one, uint64_t now)
{
    call_kind *kind = one->kind;
    one->is_open = false;
    all->open--;
    kind->done++;
    kind->finished_at = now;
    histogram_add(&kind->latencies, now - one->started_at);
    if (kind->interval == 0 && may_issue(all, kind))
        issue(all, one, now);
}

static uint64_t run_paced(generator *all, call_kind *kind, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < kind->count * kind->slots && may_issue(all, kind); i++) {
        slot *one = &all->slots[kind->first_slot + i];
        if (one->is_open)
            continue;
        uint64_t due = one->started_at + kind->interval;
        if (due <= now) {
            issue(all, one, due);
            flush(all, &all->connections[one->connection], now);
        } else if (due < next) {
            next = due;
        }
    }
    return next;
}

static uint64_t run_pieces(generator *all, const call_kind *kind, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t c = kind->first; c < kind->first + kind->count; c++) {
        connection *one = &all->connections[c];
        if (one->queued && one->piece_at <= now)
            flush(all, one, now);
        if (one->queued && one->piece_at < next)
            next = one->piece_at;
    }
    return next;
}

uint64_t run_timed(generator *all, uint64_t now)
{
    uint64_t next = UINT64_MAX, due = UINT64_MAX;
    for (uint32_t k = 0; k < all->kind_count; k++) {
        if (all->kinds[k].interval && (due = run_paced(all, &all->kinds[k], now)) < next)
            next = due;
        if (all->kinds[k].piece && (due = run_pieces(all, &all->kinds[k], now)) < next)
            next = due;
    }
    return next;
}
