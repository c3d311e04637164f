#include "wire.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t big_endian(const char *at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | (uint8_t)at[i];
    return value;
}

size_t pack_unsigned(char *out, uint64_t value)
{
    if (value < 0x80) {
        out[0] = (char)value;
        return 1;
    }
    size_t power = value <= 0xff ? 0 : value <= 0xffff ? 1 : value <= 0xffffffff ? 2 : 3, bytes = (size_t)1 << power;
    out[0] = (char)(0xcc + power);
    for (size_t i = 0; i < bytes; i++)
        out[1 + i] = (char)(value >> 8 * (bytes - 1 - i));
    return 1 + bytes;
}

long unpack_unsigned(const char *at, size_t length, uint64_t *value)
{
    if (length == 0)
        return 0;
    uint8_t first = (uint8_t)at[0];
    if (first < 0x80) {
        *value = first;
        return 1;
    }
    if (first < 0xcc || first > 0xcf)
        return -1;
    size_t bytes = (size_t)1 << (first - 0xcc);
    if (length < 1 + bytes)
        return 0;
    *value = big_endian(at + 1, bytes);
    return (long)(1 + bytes);
}

/* What a type byte from 0xc0 to 0xdf announces: bytes that hold a length, fixed bytes, values for each of the length. */
static const struct {
    uint8_t length_bytes, fixed_bytes, values;
} TYPES[0x20] = {
    [0x04] = {1, 0, 0}, [0x05] = {2, 0, 0}, [0x06] = {4, 0, 0},                    /* bin */
    [0x07] = {1, 1, 0}, [0x08] = {2, 1, 0}, [0x09] = {4, 1, 0},                    /* ext */
    [0x0a] = {0, 4, 0}, [0x0b] = {0, 8, 0},                                        /* float */
    [0x0c] = {0, 1, 0}, [0x0d] = {0, 2, 0}, [0x0e] = {0, 4, 0}, [0x0f] = {0, 8, 0}, /* unsigned */
    [0x10] = {0, 1, 0}, [0x11] = {0, 2, 0}, [0x12] = {0, 4, 0}, [0x13] = {0, 8, 0}, /* signed */
    [0x14] = {0, 2, 0}, [0x15] = {0, 3, 0}, [0x16] = {0, 5, 0}, [0x17] = {0, 9, 0}, [0x18] = {0, 17, 0}, /* fixext */
    [0x19] = {1, 0, 0}, [0x1a] = {2, 0, 0}, [0x1b] = {4, 0, 0},                    /* str */
    [0x1c] = {2, 0, 1}, [0x1d] = {4, 0, 1},                                        /* array */
    [0x1e] = {2, 0, 2}, [0x1f] = {4, 0, 2},                                        /* map */
};

/* The size of one value's own bytes and how many values it holds; 0 = more bytes are needed. */
static size_t measure(const char *at, size_t length, uint64_t *values)
{
    uint8_t first = (uint8_t)at[0];
    *values = 0;
    if (first < 0x80 || first >= 0xe0)
        return 1;
    if (first < 0xa0) {
        *values = (uint64_t)(first & 0x0f) * (first < 0x90 ? 2 : 1);
        return 1;
    }
    if (first < 0xc0)
        return 1 + (size_t)(first & 0x1f);
    size_t length_bytes = TYPES[first - 0xc0].length_bytes;
    if (length < 1 + length_bytes)
        return 0;
    uint64_t announced = big_endian(at + 1, length_bytes);
    *values = announced * TYPES[first - 0xc0].values;
    return 1 + length_bytes + TYPES[first - 0xc0].fixed_bytes + (*values || TYPES[first - 0xc0].values ? 0 : announced);
}

int skip_value(skipper *progress, const char *message, size_t length)
{
    while (progress->missing && progress->at < length) {
        uint64_t values;
        size_t size = measure(message + progress->at, length - progress->at, &values);
        if ((uint8_t)message[progress->at] == 0xc1)
            return -1;
        if (size == 0 || size > length - progress->at)
            return 0;
        progress->at += size;
        progress->missing += values - 1;
    }
    return progress->missing == 0;
}

static size_t write_rpc_head(char *out, uint32_t msgid, size_t tail_length)
{
    (void)tail_length;
    out[0] = (char)0x94;
    out[1] = 0;
    return 2 + pack_unsigned(out + 2, msgid);
}

static long read_rpc_head(const char *at, size_t length, uint32_t *msgid, size_t *result_length)
{
    if (length < 4)
        return 0;
    if ((uint8_t)at[0] != 0x94 || at[1] != 1)
        return -1;
    uint64_t value;
    long used = unpack_unsigned(at + 2, length - 2, &value);
    if (used <= 0 || length < (size_t)used + 3)
        return used < 0 ? -1 : 0;
    if (value > UINT32_MAX || (uint8_t)at[2 + used] != 0xc0) /* the error must be nil */
        return -1;
    *msgid = (uint32_t)value;
    *result_length = LENGTH_UNKNOWN;
    return used + 3;
}

static size_t write_http_head(char *out, uint32_t msgid, size_t tail_length)
{
    char id[32];
    int id_length = snprintf(id, sizeof id, "{\"id\": %u, ", msgid);
    return (size_t)snprintf(out, HEAD_MAX,
                            "POST /rpc HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                            "Content-Length: %zu\r\n\r\n%s",
                            (size_t)id_length + tail_length, id);
}

static const char *after(const char *text, const char *mark)
{
    const char *found = strcasestr(text, mark);
    return found ? found + strlen(mark) : NULL;
}

static long read_http_head(const char *at, size_t length, uint32_t *msgid, size_t *result_length)
{
    char text[HEAD_MAX + 1];
    size_t kept = length < HEAD_MAX ? length : HEAD_MAX;
    memcpy(text, at, kept);
    text[kept] = 0;
    const char *body = after(text, "\r\n\r\n");
    const char *result = body ? after(body, ", ") : NULL;
    if (!result)
        return kept < HEAD_MAX ? 0 : -1;
    const char *size = after(text, "\r\nContent-Length:");
    bool is_right = strncmp(text, "HTTP/1.1 200 ", 13) == 0 && size && strncmp(body, "{\"id\": ", 7) == 0;
    if (!is_right)
        return -1;
    *msgid = (uint32_t)strtoul(body + 7, NULL, 10);
    *result_length = strtoul(size, NULL, 10) - (size_t)(result - body);
    return result - text;
}

const protocol PROTOCOLS[] = {
    {"rpc", write_rpc_head, read_rpc_head},
    {"http", write_http_head, read_http_head},
    {NULL, NULL, NULL},
};
