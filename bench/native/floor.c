/* floor: a bare epoll server that answers sum and echo over MessagePack-RPC: what the kernel alone costs.
 *
 *   floor [--corrupt result|msgid|twice|error]
 *
 * Prints "Listening at: tcp://127.0.0.1:PORT". One thread; a method cannot block. With --corrupt every
 * hundredth reply of a connection is wrong in the way named, to prove that the load generator notices.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "wire.h"

enum { EVENTS = 256, INPUT_STEP = 1 << 18, UNREAD_LIMIT = 1 << 20, BIG_RESULT = 1 << 14, CORRUPT_EVERY = 100 };

typedef struct {
    char *bytes;
    size_t start, length, capacity; /* what counts lies from start to length */
} buffer;

typedef struct {
    int fd;
    buffer input, output;
    skipper progress; /* through the first message of the input */
    uint32_t events, replies;
} client;

static int epoll;
static const char *corrupt = "";
static char shared[INPUT_STEP]; /* read into first: an idle client keeps no buffer */

static void append(buffer *to, const void *bytes, size_t length)
{
    if (to->start && to->length + length > to->capacity) {
        memmove(to->bytes, to->bytes + to->start, to->length -= to->start);
        to->start = 0;
    }
    if (to->length + length > to->capacity) {
        to->capacity = (to->length + length) * 2;
        to->bytes = realloc(to->bytes, to->capacity);
        if (!to->bytes)
            abort();
    }
    memcpy(to->bytes + to->length, bytes, length);
    to->length += length;
}

static void drop(client *one)
{
    close(one->fd);
    free(one->input.bytes);
    free(one->output.bytes);
    free(one);
}

static bool send_output(client *one)
{
    buffer *output = &one->output;
    if (!output->length)
        return true;
    ssize_t sent = send(one->fd, output->bytes + output->start, output->length - output->start, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN;
    output->start += (size_t)sent;
    if (output->start == output->length)
        output->start = output->length = 0;
    return true;
}

/* Queue a reply; a big result goes straight from the input to the socket, if nothing is queued before it. */
static bool reply(client *one, const char *head, size_t head_length, const char *result, size_t length)
{
    size_t sent = 0;
    if (length >= BIG_RESULT && send_output(one) && !one->output.length) {
        struct iovec parts[] = {{(char *)head, head_length}, {(char *)result, length}};
        ssize_t count = writev(one->fd, parts, 2);
        if (count < 0 && errno != EAGAIN)
            return false;
        sent = count < 0 ? 0 : (size_t)count;
    }
    if (sent < head_length)
        append(&one->output, head + sent, head_length - sent);
    size_t skipped = sent < head_length ? 0 : sent - head_length;
    append(&one->output, result + skipped, length - skipped);
    return true;
}

static bool answer(client *one, uint64_t msgid, bool is_error, const char *result, size_t length)
{
    char head[16] = {(char)0x94, 1}, wrong = 0x2a;
    bool is_corrupt = *corrupt && ++one->replies % CORRUPT_EVERY == 0;
    if (is_corrupt && !strcmp(corrupt, "result")) {
        result = &wrong;
        length = 1;
    }
    size_t used = 2 + pack_unsigned(head + 2, msgid ^ (is_corrupt && !strcmp(corrupt, "msgid")));
    is_error |= is_corrupt && !strcmp(corrupt, "error");
    if (!is_error)
        head[used++] = (char)0xc0;
    if (is_corrupt && !strcmp(corrupt, "twice") && !reply(one, head, used, result, length))
        return false;
    return reply(one, head, used, result, length) && (!is_error || reply(one, "\xc0", 1, "", 0));
}

/* Answer one whole message, [0, msgid, method, [argument, ...]]; false if it is none. */
static bool serve(client *one, const char *message, size_t length)
{
    uint64_t msgid, left, right;
    char sum[16];
    if (length < 4 || (uint8_t)message[0] != 0x94 || message[1] != 0)
        return false;
    long used = unpack_unsigned(message + 2, length - 2, &msgid);
    if (used <= 0)
        return false;
    const char *method = message + 2 + used, *end = message + length;
    if (end - method > 6 && !memcmp(method, "\xa4" "echo" "\x91", 6))
        return answer(one, msgid, false, method + 6, (size_t)(end - method - 6));
    if (end - method > 6 && !memcmp(method, "\xa3" "sum" "\x92", 5)) {
        const char *at = method + 5;
        long first = unpack_unsigned(at, (size_t)(end - at), &left);
        long second = first > 0 ? unpack_unsigned(at + first, (size_t)(end - at - first), &right) : -1;
        if (second > 0)
            return answer(one, msgid, false, sum, pack_unsigned(sum, left + right));
    }
    return answer(one, msgid, true, "\xb0" "method not found", 17);
}

/* Answer the whole messages; what is left over (if not all of it was in the client's own buffer) is kept there. */
static bool serve_all(client *one, const char *bytes, size_t length)
{
    size_t start = 0;
    int state;
    if (!one->progress.missing)
        one->progress = (skipper){0, 1};
    while ((state = skip_value(&one->progress, bytes + start, length - start)) == 1) {
        if (!serve(one, bytes + start, one->progress.at))
            return false;
        start += one->progress.at;
        one->progress = (skipper){0, 1};
    }
    if (state < 0)
        return false;
    if (bytes != one->input.bytes) {
        append(&one->input, bytes + start, length - start);
    } else if (start) {
        memmove(one->input.bytes, one->input.bytes + start, length - start);
        one->input.length = length - start;
    }
    return true;
}

static bool read_input(client *one)
{
    if (!one->input.length) {
        ssize_t length = recv(one->fd, shared, sizeof shared, 0);
        return length > 0 ? serve_all(one, shared, (size_t)length) : length < 0 && errno == EAGAIN;
    }
    buffer *input = &one->input;
    if (input->capacity - input->length < INPUT_STEP) {
        input->capacity = input->capacity * 2 + INPUT_STEP;
        input->bytes = realloc(input->bytes, input->capacity);
        if (!input->bytes)
            abort();
    }
    ssize_t length = recv(one->fd, input->bytes + input->length, input->capacity - input->length, 0);
    if (length <= 0)
        return length < 0 && errno == EAGAIN;
    input->length += (size_t)length;
    return serve_all(one, input->bytes, input->length);
}

/* A client that does not read its replies is not read either. */
static void watch(client *one, int operation)
{
    uint32_t events = (one->output.length - one->output.start < UNREAD_LIMIT ? EPOLLIN : 0) | (one->output.length ? EPOLLOUT : 0);
    if (events == one->events)
        return;
    one->events = events;
    struct epoll_event event = {.events = events, .data.ptr = one};
    epoll_ctl(epoll, operation, one->fd, &event);
}

static void accept_all(int listener)
{
    for (int fd, on = 1; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        client *one = calloc(1, sizeof *one);
        one->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(one, EPOLL_CTL_ADD);
    }
}

static int listen_on_any_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 2048) ||
        getsockname(listener, (struct sockaddr *)&address, &size)) {
        perror("floor");
        exit(1);
    }
    printf("Listening at: tcp://127.0.0.1:%u\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int count, char **arguments)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (count == 3 && !strcmp(arguments[1], "--corrupt"))
        corrupt = arguments[2];
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on_any_port();
    struct epoll_event events[EVENTS], accepting = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &accepting);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            client *one = events[i].data.ptr;
            if (!one) {
                accept_all(listener);
                continue;
            }
            bool is_fine = !(events[i].events & ~(uint32_t)EPOLLOUT) || read_input(one);
            if (is_fine && send_output(one))
                watch(one, EPOLL_CTL_MOD);
            else
                drop(one);
        }
    }
}
