/* storm: connects again and again, sends the same bytes, and counts how each connection ends.
 *
 *   storm --port P --bytes FILE [--rate 300] [--seconds S] [--processes 8]
 *
 * It prints one line of JSON: the connections that were tried, those that the peer has closed, those that it has left
 * open for five seconds, and those that could not be made.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_SECONDS = 5, MOST_BYTES = 65536 };
#define SECOND 1000000000ull

typedef struct {
    uint64_t tried, closed, open, failed;
} outcome;

static char bytes[MOST_BYTES];
static size_t length;
static struct sockaddr_in address = {.sin_family = AF_INET};

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void wait_until(uint64_t moment)
{
    struct timespec time = {.tv_sec = (time_t)(moment / SECOND), .tv_nsec = (long)(moment % SECOND)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
        ;
}

/* One connection, from its begin until the peer closes it. */
static void storm(outcome *found)
{
    static char answer[MOST_BYTES];
    struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    found->tried++;
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    if (sock < 0 || setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        connect(sock, (struct sockaddr *)&address, sizeof address)) {
        found->failed++;
    } else {
        ssize_t got = send(sock, bytes, length, MSG_NOSIGNAL);
        while (got > 0)
            got = recv(sock, answer, sizeof answer, 0);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            found->open++;
        else
            found->closed++;
    }
    if (sock >= 0)
        close(sock);
}

int main(int count, char **arguments)
{
    static const struct option options[] = {{"port", 1, 0, 'p'},    {"bytes", 1, 0, 'b'},     {"rate", 1, 0, 'r'},
                                            {"seconds", 1, 0, 's'}, {"processes", 1, 0, 'n'}, {0, 0, 0, 0}};
    double rate = 300, seconds = 1;
    int processes = 8, option;
    FILE *file = NULL;
    while ((option = getopt_long(count, arguments, "", options, NULL)) != -1) {
        switch (option) {
        case 'p': address.sin_port = htons((uint16_t)atoi(optarg)); break;
        case 'b': file = fopen(optarg, "rb"); break;
        case 'r': rate = atof(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'n': processes = atoi(optarg); break;
        default: return 2;
        }
    }
    if (!file || !address.sin_port || rate <= 0 || processes < 1) {
        fprintf(stderr, "storm: expected --port P --bytes FILE, and numbers above 0\n");
        return 2;
    }
    length = fread(bytes, 1, sizeof bytes, file);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    outcome *all = mmap(NULL, sizeof *all * (size_t)processes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        return 1;
    uint64_t began = now(), end = began + (uint64_t)(seconds * (double)SECOND);
    for (int number = 0; number < processes; number++) {
        if (!fork()) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (uint64_t turn = 0;; turn++) {
                double place = (double)turn * processes + number;
                uint64_t moment = began + (uint64_t)(place / rate * (double)SECOND);
                if (moment >= end)
                    _exit(0);
                wait_until(moment);
                storm(&all[number]);
            }
        }
    }
    while (wait(NULL) > 0)
        ;
    outcome sum = {0};
    for (int number = 0; number < processes; number++) {
        sum.tried += all[number].tried;
        sum.closed += all[number].closed;
        sum.open += all[number].open;
        sum.failed += all[number].failed;
    }
    printf("{\"tried\": %lu, \"closed\": %lu, \"open\": %lu, \"failed\": %lu}\n", sum.tried, sum.closed, sum.open, sum.failed);
    return 0;
}
