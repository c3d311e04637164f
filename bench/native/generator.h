/* The load generator's parts: kinds of calls, their slots, and connections. One thread, no locks.
 *
 * A slot is room for one call in flight on one connection. Its number is in its msgids (number + k × all
 * slots), so a msgid is never used twice at once, names its connection, and each reply is checked in O(1).
 */
#ifndef GENERATOR_H
#define GENERATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "histogram.h"
#include "wire.h"

/* What is called how: `slots` calls in flight on each of `count` connections from the `first` on. */
typedef struct {
    const char *name;
    char *tail, *expected;
    size_t tail_length, expected_length;
    uint32_t first, count, slots;
    uint64_t limit;             /* calls altogether; 0 = until the time is up */
    uint64_t interval;          /* nanoseconds between two calls of a slot; 0 = as soon as the reply came */
    size_t piece;               /* bytes a write at most; 0 = all at once */
    uint64_t piece_interval;    /* nanoseconds between two pieces */
    bool is_deaf;               /* send for ever, read nothing */
    uint32_t first_slot;
    uint64_t issued, done, finished_at;
    histogram latencies;
} call_kind;

typedef struct {
    uint32_t connection, msgid;
    call_kind *kind;
    bool is_open; /* a reply is due */
    uint64_t started_at;
    size_t length; /* of the request */
} slot;

typedef struct {
    int fd;
    bool is_deaf, is_blocked; /* blocked: waits until the socket can be written */
    uint32_t *queue, queue_size, queue_first, queued; /* slots whose requests are to be sent, a ring */
    size_t sent;                                      /* bytes of the first of them that have left */
    size_t piece;
    uint64_t piece_interval, piece_at; /* when the next piece may leave */
    char carry[HEAD_MAX];              /* the start of a reply's head */
    size_t carried;
    slot *reply; /* the reply whose result is being read, and how much of it came */
    size_t compared;
} connection;

typedef struct {
    const protocol *wire;
    call_kind *kinds;
    uint32_t kind_count;
    slot *slots;
    uint32_t slot_count;
    connection *connections;
    uint32_t connection_count;
    int epoll;
    bool is_issuing; /* whether a finished call is followed by another */
    uint64_t open;   /* calls that wait for their reply */
} generator;

uint64_t now_nanoseconds(void);
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* calls.c: which call comes next, and when one is done. */
void lay_out_slots(generator *all);
bool may_issue(const generator *all, const call_kind *kind);
void issue(generator *all, slot *one, uint64_t started_at);
void finish(generator *all, slot *one, uint64_t now);
/* Issue the paced calls that are due, send the pieces that are due; when the next one is, or UINT64_MAX. */
uint64_t run_timed(generator *all, uint64_t now);

/* connection.c: bytes out and in. */
void open_connections(generator *all, uint16_t port);
void flush(generator *all, connection *one, uint64_t now);
void receive(generator *all, connection *one);

#endif
