/* load: a load generator that checks every reply. Options, the event loop, and the report as JSON.
 *
 *   load --port P [--protocol rpc|http] [--connections N] [--seconds S]
 *        --call name=sum,tail=FILE,expect=FILE[,first=0][,count=N][,slots=1][,limit=0][,interval_us=0]
 *               [,piece=0][,piece_interval_us=0][,deaf] ...
 *
 * It connects, does one call on each connection, prints "ready" and waits for a line on stdin; then runs,
 * prints one line of JSON, and keeps its connections until stdin ends. Exit status 2: a reply was wrong.
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "generator.h"

enum { KINDS = 8, EVENTS = 256 };
#define SECOND 1000000000ull
#define PATIENCE (20 * SECOND) /* for the replies still due when the time is up */

static generator all;
static call_kind kinds[KINDS];
static uint16_t port;
static double seconds = 1;

uint64_t now_nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

_Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(2);
}

static char *read_all(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        fail("cannot read %s: %s", path, strerror(errno));
    *length = (size_t)ftell(file);
    rewind(file);
    char *content = malloc(*length + 1);
    if (!content || fread(content, 1, *length, file) != *length)
        fail("cannot read %s whole", path);
    fclose(file);
    return content;
}

static void parse_call(char *text)
{
    enum { NAME, TAIL, EXPECT, FIRST, COUNT, SLOTS, LIMIT, INTERVAL, PIECE, PIECE_INTERVAL, DEAF };
    static char *const keys[] = {"name",        "tail",  "expect",            "first", "count", "slots", "limit",
                                 "interval_us", "piece", "piece_interval_us", "deaf",  NULL};
    if (all.kind_count == KINDS)
        fail("found more than %d kinds of calls", KINDS);
    call_kind *kind = &kinds[all.kind_count++];
    kind->slots = 1;
    while (*text) {
        char *value = NULL, *start = text;
        int key = getsubopt(&text, keys, &value);
        uint64_t number = value ? strtoull(value, NULL, 10) : 0;
        if (key < 0 || (key != DEAF && !value))
            fail("found %s in --call, expected KEY=VALUE", start);
        switch (key) {
        case NAME: kind->name = value; break;
        case TAIL: kind->tail = read_all(value, &kind->tail_length); break;
        case EXPECT: kind->expected = read_all(value, &kind->expected_length); break;
        case FIRST: kind->first = (uint32_t)number; break;
        case COUNT: kind->count = (uint32_t)number; break;
        case SLOTS: kind->slots = (uint32_t)number; break;
        case LIMIT: kind->limit = number; break;
        case INTERVAL: kind->interval = number * 1000; break;
        case PIECE: kind->piece = (size_t)number; break;
        case PIECE_INTERVAL: kind->piece_interval = number * 1000; break;
        default: kind->is_deaf = true;
        }
    }
}

static void parse_options(int count, char **arguments)
{
    static const struct option options[] = {{"port", required_argument, NULL, 'p'},
                                            {"protocol", required_argument, NULL, 'w'},
                                            {"connections", required_argument, NULL, 'n'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {"call", required_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    all.wire = &PROTOCOLS[0];
    all.connection_count = 1;
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        switch (option) {
        case 'p': port = (uint16_t)atoi(optarg); break;
        case 'n': all.connection_count = (uint32_t)atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'c': parse_call(optarg); break;
        case 'w':
            while (all.wire->name && strcmp(all.wire->name, optarg))
                all.wire++;
            break;
        default: exit(2);
        }
    }
    if (!port || !all.kind_count || !all.wire->name)
        fail("expected --port, --call, and a known --protocol");
}

static void check_kinds(void)
{
    for (uint32_t k = 0; k < all.kind_count; k++) {
        call_kind *kind = &kinds[k];
        if (!kind->count)
            kind->count = all.connection_count - kind->first;
        if (!kind->name || !kind->tail || !(kind->expected || kind->is_deaf) || !kind->slots)
            fail("kind %u: expected name, tail, expect and slots", k);
        if (kind->first >= all.connection_count || kind->count > all.connection_count - kind->first)
            fail("kind %u: expected connections below %u", k, all.connection_count);
    }
}

static bool is_over(uint64_t now, uint64_t end)
{
    bool is_limited = false;
    for (uint32_t k = 0; k < all.kind_count; k++) {
        is_limited |= kinds[k].limit != 0;
        if (kinds[k].limit && kinds[k].done < kinds[k].limit)
            return now >= end;
    }
    return is_limited || now >= end;
}

/* Paced slots begin spread over the interval, the others at once. */
static void start_kinds(uint64_t now)
{
    for (uint32_t k = 0; k < all.kind_count; k++) {
        call_kind *kind = &kinds[k];
        uint32_t total = kind->count * kind->slots;
        for (uint32_t i = 0; i < total; i++) {
            slot *one = &all.slots[kind->first_slot + i];
            if (kind->interval)
                one->started_at = now - kind->interval + kind->interval * i / total;
            else if (may_issue(&all, kind))
                issue(&all, one, now);
        }
    }
    for (uint32_t c = 0; c < all.connection_count; c++)
        flush(&all, &all.connections[c], now_nanoseconds());
}

static uint64_t open_calls(void)
{
    uint64_t deaf = 0;
    for (uint32_t k = 0; k < all.kind_count; k++)
        if (kinds[k].is_deaf)
            deaf += kinds[k].issued - kinds[k].done;
    return all.open - deaf;
}

/* To the nanosecond, as near as the kernel comes: polling until it is time would take the CPU from the servers. */
static int await_events(struct epoll_event *events, uint64_t nanoseconds)
{
    struct timespec timeout = {.tv_sec = (time_t)(nanoseconds / SECOND), .tv_nsec = (long)(nanoseconds % SECOND)};
    long count = syscall(SYS_epoll_pwait2, all.epoll, events, EVENTS, &timeout, NULL, 0);
    if (count < 0 && errno == ENOSYS) /* before Linux 5.11 */
        count = epoll_wait(all.epoll, events, EVENTS, (int)(nanoseconds / 1000000));
    return (int)count;
}

static void run_once(uint64_t until)
{
    struct epoll_event events[EVENTS];
    uint64_t now = now_nanoseconds(), due = run_timed(&all, now), next = due < until ? due : until;
    int count = await_events(events, next <= now ? 0 : next - now);
    for (int i = 0; i < count; i++) {
        connection *one = &all.connections[events[i].data.u32];
        if (events[i].events & EPOLLOUT)
            flush(&all, one, now_nanoseconds());
        if (!one->is_deaf && events[i].events & ~(uint32_t)EPOLLOUT)
            receive(&all, one);
    }
}

static void run(uint64_t start)
{
    uint64_t end = start + (uint64_t)(seconds * (double)SECOND);
    all.is_issuing = true;
    start_kinds(start);
    while (!is_over(now_nanoseconds(), end))
        run_once(end);
    all.is_issuing = false;
    uint64_t last = now_nanoseconds() + PATIENCE;
    while (open_calls() && now_nanoseconds() < last)
        run_once(last);
    if (open_calls())
        fail("%lu calls unanswered %d seconds after the time was up", (unsigned long)open_calls(), (int)(PATIENCE / SECOND));
}

static double cpu_seconds(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

static void report(uint64_t start, double cpu)
{
    printf("{\"cpu_seconds\": %.6f, \"wall_seconds\": %.6f, \"calls\": {", cpu, (double)(now_nanoseconds() - start) / 1e9);
    for (uint32_t k = 0; k < all.kind_count; k++) {
        const call_kind *kind = &kinds[k];
        double taken = kind->done ? (double)(kind->finished_at - start) / 1e9 : 0;
        printf("%s\"%s\": {\"calls\": %lu, \"seconds\": %.6f, \"calls_per_second\": %.1f, "
               "\"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f}",
               k ? ", " : "", kind->name, (unsigned long)kind->done, taken, taken > 0 ? (double)kind->done / taken : 0,
               (double)histogram_quantile(&kind->latencies, 0.5) / 1e3,
               (double)histogram_quantile(&kind->latencies, 0.99) / 1e3, (double)kind->latencies.longest / 1e3);
    }
    printf("}}\n");
    fflush(stdout);
}

int main(int count, char **arguments)
{
    char line[16];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1ul);
    parse_options(count, arguments);
    all.kinds = kinds;
    check_kinds();
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    all.epoll = epoll_create1(EPOLL_CLOEXEC);
    all.connections = calloc(all.connection_count, sizeof *all.connections);
    lay_out_slots(&all);
    open_connections(&all, port);
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 0;
    double cpu = cpu_seconds();
    uint64_t start = now_nanoseconds();
    run(start);
    report(start, cpu_seconds() - cpu);
    while (fgets(line, sizeof line, stdin))
        ;
    return 0;
}
