/* The bytes around a call: heads of requests and replies, for MessagePack-RPC and for JSON over HTTP.
 *
 * A request is a head, which carries the msgid, and a tail that is the same for every call of a kind; a
 * reply is a head and the expected result. So the generator packs nothing but heads, and compares bytes.
 */
#ifndef WIRE_H
#define WIRE_H

#include <stddef.h>
#include <stdint.h>

enum { HEAD_MAX = 1024 };
#define LENGTH_UNKNOWN SIZE_MAX

typedef struct {
    const char *name;
    /* Write the head of a request; return its length. */
    size_t (*write_head)(char *out, uint32_t msgid, size_t tail_length);
    /* Read the head of a reply: its length, 0 if more bytes are needed, -1 if it is none or reports an error. */
    long (*read_head)(const char *at, size_t length, uint32_t *msgid, size_t *result_length);
} protocol;

extern const protocol PROTOCOLS[]; /* ends with one without a name */

/* MessagePack unsigned integers, in the shortest form. */
size_t pack_unsigned(char *out, uint64_t value);
/* The bytes read, 0 if more are needed, -1 if no unsigned integer is there. */
long unpack_unsigned(const char *at, size_t length, uint64_t *value);

/* Skipping one value, resumable: no byte of a message in many pieces is looked at twice. */
typedef struct {
    size_t at;        /* bytes of the message already skipped */
    uint64_t missing; /* values still to come; 0 = the message is whole */
} skipper;

/* 1 when the value is whole, 0 if more bytes are needed, -1 if they are not MessagePack. */
int skip_value(skipper *progress, const char *message, size_t length);

#endif
