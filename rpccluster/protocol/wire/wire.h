/* MessagePack to and from Python's exact types, and where a message ends. No I/O, no state of its own.
 *
 * What is not an exact type of Python's, or does not fit the common case, is ODD: the caller leaves it to msgpack and to
 * `rpccluster.protocol`, whose behaviour holds for everything. So each function here may give up at any time.
 *
 * A declared length never allocates more than has come: a container of more than SMALL_CONTAINER values is decoded only
 * where the caller knows its message to be whole, and no container may declare more values than bytes are left.
 *
 * Source: https://github.com/msgpack/msgpack/blob/master/spec.md
 */
#ifndef RPCCLUSTER_WIRE_H
#define RPCCLUSTER_WIRE_H

#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { WIRE_OK = 0, WIRE_SHORT = 1, WIRE_ODD = 2, WIRE_FAILED = 3 };
enum { SMALL_CONTAINER = 1024, PACK_DEPTH = 400 };
#define LONGEST_SECONDS 1e9 /* a longer timeout has rules of its own */

static inline uint16_t wire_u16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t wire_u32(const uint8_t *p)
{
    uint32_t number;
    memcpy(&number, p, 4);
    return __builtin_bswap32(number);
}
static inline uint64_t wire_u64(const uint8_t *p)
{
    uint64_t number;
    memcpy(&number, p, 8);
    return __builtin_bswap64(number);
}

#include "quiet.h"
#include "outline.h"
#include "decode.h"
#include "pack.h"

#endif
