/* One connection's bytes: requests out in as few writes as can be, replies in and checked as they come. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "generator.h"

enum { SCRATCH = 1 << 16, SMALL_TAIL = 2048, VECTORS = 64, WARM_UP_MILLISECONDS = 20000 };
/* Bounds for one turn of one connection, so that the others' latency is not the generator's own. */
enum { TURN_WRITES = 4, TURN_INPUT = 1 << 15, BULK_INPUT = 1 << 18 };

static char scratch[SCRATCH], input[BULK_INPUT];

static int connect_one(uint16_t port)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server))
        fail("cannot connect to port %u: %s", port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* One call on a new connection: the server has accepted it, and has done a call, when it is counted on. */
static void warm_up(generator *all, connection *one)
{
    for (uint32_t k = 0; k < all->kind_count; k++) {
        call_kind *kind = &all->kinds[k];
        uint32_t index = (uint32_t)(one - all->connections) - kind->first;
        if (index < kind->count && !kind->is_deaf) {
            issue(all, &all->slots[kind->first_slot + index], now_nanoseconds());
            break;
        }
    }
    while (all->open) {
        flush(all, one, UINT64_MAX);
        bool is_sending = one->queued && !one->is_blocked;
        struct pollfd wanted = {.fd = one->fd, .events = (short)(POLLIN | (one->is_blocked ? POLLOUT : 0))};
        if (poll(&wanted, 1, is_sending ? 0 : WARM_UP_MILLISECONDS) == 0 && !is_sending)
            fail("no reply to the first call of a connection within %d ms", WARM_UP_MILLISECONDS);
        if (wanted.revents & ~POLLOUT)
            receive(all, one);
    }
    one->piece_at = 0;
}

void open_connections(generator *all, uint16_t port)
{
    for (uint32_t c = 0; c < all->connection_count; c++) {
        connection *one = &all->connections[c];
        one->fd = connect_one(port);
        warm_up(all, one);
        struct epoll_event event = {.events = one->is_deaf ? EPOLLOUT : EPOLLIN, .data.u32 = c};
        epoll_ctl(all->epoll, EPOLL_CTL_ADD, one->fd, &event);
    }
    for (uint32_t k = 0; k < all->kind_count; k++) {
        all->kinds[k].issued = all->kinds[k].done = 0;
        memset(&all->kinds[k].latencies, 0, sizeof(histogram));
    }
}

/* Lay the queued requests out for one write: small ones one behind the other, big tails where they are. */
static int gather(const generator *all, const connection *one, struct iovec *vectors)
{
    int used = 0;
    size_t filled = 0;
    for (uint32_t i = 0; i < one->queued && used < VECTORS - 1 && filled < SCRATCH - HEAD_MAX - SMALL_TAIL; i++) {
        const slot *next = &all->slots[one->queue[(one->queue_first + i) % one->queue_size]];
        const call_kind *kind = next->kind;
        char *start = scratch + filled;
        filled += all->wire->write_head(start, next->msgid, kind->tail_length);
        bool is_small = kind->tail_length <= SMALL_TAIL;
        if (is_small) {
            memcpy(scratch + filled, kind->tail, kind->tail_length);
            filled += kind->tail_length;
        }
        if (used && (char *)vectors[used - 1].iov_base + vectors[used - 1].iov_len == start)
            vectors[used - 1].iov_len += (size_t)(scratch + filled - start);
        else
            vectors[used++] = (struct iovec){start, (size_t)(scratch + filled - start)};
        if (!is_small)
            vectors[used++] = (struct iovec){kind->tail, kind->tail_length};
    }
    return used;
}

/* Leave out what was sent already, and what goes beyond one piece. */
static int trim(struct iovec *vectors, int used, size_t sent, size_t piece)
{
    int kept = 0;
    for (int i = 0; i < used; i++) {
        size_t skipped = sent < vectors[i].iov_len ? sent : vectors[i].iov_len;
        size_t length = vectors[i].iov_len - skipped;
        sent -= skipped;
        if (length > piece)
            length = piece;
        piece -= length;
        if (length)
            vectors[kept++] = (struct iovec){(char *)vectors[i].iov_base + skipped, length};
    }
    return kept;
}

static void count_sent(generator *all, connection *one, size_t sent, uint64_t now)
{
    one->sent += sent;
    while (one->queued) {
        slot *first = &all->slots[one->queue[one->queue_first]];
        if (one->sent < first->length)
            break;
        one->sent -= first->length;
        one->queue_first = (one->queue_first + 1) % one->queue_size;
        one->queued--;
        if (one->is_deaf)
            finish(all, first, now); /* nobody waits for its reply: the slot is free again */
    }
}

static void want_write(generator *all, connection *one, bool is_wanted)
{
    if (one->is_deaf || one->is_blocked == is_wanted)
        return;
    struct epoll_event event = {.events = EPOLLIN | (is_wanted ? EPOLLOUT : 0), .data.u32 = (uint32_t)(one - all->connections)};
    epoll_ctl(all->epoll, EPOLL_CTL_MOD, one->fd, &event); /* not registered while it warms up: no harm */
    one->is_blocked = is_wanted;
}

/* Send what is queued, as far as the socket takes it; one write only for pieces and for those who don't read. */
void flush(generator *all, connection *one, uint64_t now)
{
    bool is_stopped = one->piece && one->piece_at > now;
    for (int writes = 0; one->queued && !is_stopped; writes++) {
        if (writes == TURN_WRITES) {
            want_write(all, one, true);
            return;
        }
        struct iovec vectors[VECTORS];
        int used = trim(vectors, gather(all, one, vectors), one->sent, one->piece ? one->piece : SIZE_MAX);
        struct msghdr message = {.msg_iov = vectors, .msg_iovlen = (size_t)used};
        ssize_t sent = sendmsg(one->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            want_write(all, one, true);
            return;
        }
        if (sent < 0 && one->is_deaf) { /* the server gave it up, as it may */
            epoll_ctl(all->epoll, EPOLL_CTL_DEL, one->fd, NULL);
            return;
        }
        if (sent < 0)
            fail("cannot send on connection %td: %s", one - all->connections, strerror(errno));
        count_sent(all, one, (size_t)sent, now);
        one->piece_at = (now == UINT64_MAX ? 0 : now) + one->piece_interval;
        is_stopped = one->is_deaf || one->piece;
    }
    want_write(all, one, false);
}

static void fail_reply(const generator *all, const connection *one, const char *why, const char *at, size_t length)
{
    enum { SHOWN = 160 };
    char shown[4 * SHOWN + 1] = "", *end = shown;
    for (size_t i = 0; i < length && i < SHOWN; i++)
        end += sprintf(end, at[i] >= ' ' && at[i] <= '~' ? "%c" : "\\x%02x", (uint8_t)at[i]);
    fail("connection %td: %s; found %s", one - all->connections, why, shown);
}

/* Find the call that a reply's head answers; the head's bytes that lie in `at`, 0 if it goes on beyond them. */
static size_t begin_reply(generator *all, connection *one, const char *at, size_t length)
{
    size_t carried = one->carried, added = length < HEAD_MAX - carried ? length : HEAD_MAX - carried;
    const char *head = at;
    if (carried) {
        memcpy(one->carry + carried, at, added);
        head = one->carry;
        length = carried + added;
    }
    uint32_t msgid = 0;
    size_t result_length = LENGTH_UNKNOWN;
    long used = all->wire->read_head(head, length, &msgid, &result_length);
    if (used < 0 || (used == 0 && length >= HEAD_MAX))
        fail_reply(all, one, "expected a reply without an error", head, length);
    if (used == 0) {
        memmove(one->carry, head, length);
        one->carried = length;
        return 0;
    }
    slot *answered = &all->slots[msgid % all->slot_count];
    bool is_due = answered->is_open && answered->msgid == msgid && &all->connections[answered->connection] == one;
    if (!is_due)
        fail_reply(all, one, "expected the msgid of an open call, each once", head, length);
    if (result_length != LENGTH_UNKNOWN && result_length != answered->kind->expected_length)
        fail_reply(all, one, "expected a result of another length", head, length);
    one->reply = answered;
    one->carried = one->compared = 0;
    return (size_t)used - carried;
}

static void consume(generator *all, connection *one, const char *at, const char *end, uint64_t now)
{
    while (at < end) {
        if (!one->reply) {
            size_t used = begin_reply(all, one, at, (size_t)(end - at));
            if (!one->reply)
                return;
            at += used;
        }
        const call_kind *kind = one->reply->kind;
        size_t missing = kind->expected_length - one->compared, length = (size_t)(end - at);
        if (length > missing)
            length = missing;
        if (memcmp(at, kind->expected + one->compared, length))
            fail_reply(all, one, "expected another result", at, length);
        one->compared += length;
        at += length;
        if (one->compared == kind->expected_length) {
            slot *answered = one->reply;
            one->reply = NULL;
            finish(all, answered, now);
        }
    }
}

/* Read what is there, check it, and send the calls that follow. */
void receive(generator *all, connection *one)
{
    ssize_t length = recv(one->fd, input, one->reply ? BULK_INPUT : TURN_INPUT, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0)
        fail("connection %td closed by the server (%s) with %u unsent and %lu open calls", one - all->connections,
             length ? strerror(errno) : "end of file", one->queued, (unsigned long)all->open);
    uint64_t now = now_nanoseconds();
    consume(all, one, input, input + length, now);
    flush(all, one, now);
}
