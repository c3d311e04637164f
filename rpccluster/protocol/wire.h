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

/* ---- where a message ends */

/* Follows one message through its bytes: `at` is how far it got, `owed` the values that must still come. */
typedef struct {
    size_t at, resume; /* it gets no further before `resume` bytes have come */
    uint64_t owed;
    uint32_t depth;
    uint64_t max_size;
    uint32_t max_depth;
    uint64_t *open; /* values still to come of each open container; room for max_depth + 2 */
} wire_outline;

enum { OUTLINE_WHOLE = 1, OUTLINE_SHORT = 0, OUTLINE_REFUSED = -1 };

static inline void outline_begin(wire_outline *o, uint64_t *open, uint64_t max_size, uint32_t max_depth)
{
    o->max_size = max_size;
    o->max_depth = max_depth;
    o->at = 0;
    o->resume = 1;
    o->owed = 1;
    o->depth = 1;
    o->open = open;
    open[0] = 1;
}

/* Go on through `data`, the message from its first byte. OUTLINE_REFUSED: no MessagePack, too large, or too deep; which of
 * them is for `rpccluster.protocol.outline` to say. */
static inline int outline_advance(wire_outline *o, const uint8_t *data, size_t size)
{
    while (o->resume <= size) {
        const uint8_t *p = data + o->at;
        uint8_t first = *p;
        uint64_t whole = 1, inside = 0; /* bytes of the value itself; values inside a container */
        unsigned width = 0, extra = 0;
        int is_container = 0;
        if (first <= 0x7f || first >= 0xe0 || first == 0xc0 || first == 0xc2 || first == 0xc3)
            ;
        else if (first <= 0x8f) {
            is_container = 1;
            inside = (uint64_t)(first & 0x0f) * 2;
        } else if (first <= 0x9f) {
            is_container = 1;
            inside = first & 0x0f;
        } else if (first <= 0xbf)
            whole = 1 + (uint64_t)(first & 0x1f);
        else {
            switch (first) {
            case 0xc4: case 0xd9: width = 1; break;
            case 0xc5: case 0xda: width = 2; break;
            case 0xc6: case 0xdb: width = 4; break;
            case 0xc7: width = 1; extra = 1; break;
            case 0xc8: width = 2; extra = 1; break;
            case 0xc9: width = 4; extra = 1; break;
            case 0xca: case 0xce: case 0xd2: whole = 5; break;
            case 0xcb: case 0xcf: case 0xd3: whole = 9; break;
            case 0xcc: case 0xd0: whole = 2; break;
            case 0xcd: case 0xd1: whole = 3; break;
            case 0xd4: whole = 3; break;
            case 0xd5: whole = 4; break;
            case 0xd6: whole = 6; break;
            case 0xd7: whole = 10; break;
            case 0xd8: whole = 18; break;
            case 0xdc: case 0xde: width = 2; is_container = 1; break;
            case 0xdd: case 0xdf: width = 4; is_container = 1; break;
            default: return OUTLINE_REFUSED;
            }
            if (width) {
                if (o->at + 1 + width > size) {
                    o->resume = o->at + 1 + width;
                    return OUTLINE_SHORT;
                }
                uint64_t length = width == 1 ? p[1] : width == 2 ? wire_u16(p + 1) : wire_u32(p + 1);
                if (is_container) {
                    whole = 1 + width;
                    inside = first >= 0xde ? length * 2 : length;
                } else
                    whole = 1 + width + extra + length;
            }
        }
        uint64_t end = o->at + whole;
        if (is_container) {
            if (o->depth > o->max_depth)
                return OUTLINE_REFUSED;
            o->owed += inside;
            o->owed -= 1;
            o->open[o->depth - 1] -= 1;
            o->open[o->depth++] = inside;
        } else if (end > size) {
            if (end + o->owed - 1 > o->max_size)
                return OUTLINE_REFUSED;
            o->resume = end;
            return OUTLINE_SHORT;
        } else {
            o->owed -= 1;
            o->open[o->depth - 1] -= 1;
        }
        o->at = end;
        if (end + o->owed > o->max_size)
            return OUTLINE_REFUSED;
        while (o->depth && !o->open[o->depth - 1])
            o->depth--;
        if (!o->depth)
            return OUTLINE_WHOLE;
        o->resume = end + 1;
    }
    return OUTLINE_SHORT;
}

/* ---- decoding */

typedef struct {
    const uint8_t *at, *end;
    int is_whole; /* the message is known to end before `end`: containers may be large */
} wire_reader;

static PyObject *wire_decode(wire_reader *r, int depth_left, int *status);

static inline PyObject *wire_give_up(int *status, int why)
{
    *status = why;
    return NULL;
}

static inline PyObject *wire_str(wire_reader *r, size_t length, int *status)
{
    if ((size_t)(r->end - r->at) < length)
        return wire_give_up(status, WIRE_SHORT);
    PyObject *made = PyUnicode_DecodeUTF8((const char *)r->at, (Py_ssize_t)length, NULL);
    if (!made) {
        PyErr_Clear();
        return wire_give_up(status, WIRE_ODD);
    }
    r->at += length;
    return made;
}

static inline PyObject *wire_bin(wire_reader *r, size_t length, int *status)
{
    if ((size_t)(r->end - r->at) < length)
        return wire_give_up(status, WIRE_SHORT);
    PyObject *made = PyBytes_FromStringAndSize((const char *)r->at, (Py_ssize_t)length);
    if (!made)
        return wire_give_up(status, WIRE_FAILED);
    r->at += length;
    return made;
}

static inline int wire_may_enter(wire_reader *r, uint64_t values, int depth_left, int *status)
{
    if (depth_left <= 0 || (values > SMALL_CONTAINER && !r->is_whole)) {
        *status = WIRE_ODD; /* the outline tells whether it is whole, or refuses it */
        return 0;
    }
    if (values > (uint64_t)(r->end - r->at)) {
        *status = WIRE_SHORT;
        return 0;
    }
    return 1;
}

static PyObject *wire_list(wire_reader *r, uint32_t count, int depth_left, int *status)
{
    if (!wire_may_enter(r, count, depth_left, status))
        return NULL;
    PyObject *list = PyList_New((Py_ssize_t)count);
    if (!list)
        return wire_give_up(status, WIRE_FAILED);
    for (uint32_t i = 0; i < count; i++) {
        PyObject *value = wire_decode(r, depth_left - 1, status);
        if (!value) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, value);
    }
    return list;
}

static PyObject *wire_map(wire_reader *r, uint32_t count, int depth_left, int *status)
{
    if (!wire_may_enter(r, (uint64_t)count * 2, depth_left, status))
        return NULL;
    PyObject *map = PyDict_New();
    if (!map)
        return wire_give_up(status, WIRE_FAILED);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t first = r->at < r->end ? *r->at : 0xa0;
        /* keys: str and small integers; the rest has its rules elsewhere */
        if (!(first <= 0x7f || (first >= 0xa0 && first <= 0xbf) || first == 0xd9 || first == 0xda)) {
            Py_DECREF(map);
            return wire_give_up(status, WIRE_ODD);
        }
        PyObject *key = wire_decode(r, depth_left - 1, status);
        PyObject *value = key ? wire_decode(r, depth_left - 1, status) : NULL;
        int failed = value ? PyDict_SetItem(map, key, value) : 1;
        Py_XDECREF(key);
        Py_XDECREF(value);
        if (failed) {
            Py_DECREF(map);
            if (value)
                *status = WIRE_FAILED;
            return NULL;
        }
    }
    return map;
}

static inline int wire_has(wire_reader *r, size_t bytes) { return (size_t)(r->end - r->at) >= bytes; }

/* Decode the value at `r->at`, at most `depth_left` containers deep; NULL with `status` set if it cannot be done here. */
static PyObject *wire_decode(wire_reader *r, int depth_left, int *status)
{
    if (r->at >= r->end)
        return wire_give_up(status, WIRE_SHORT);
    uint8_t first = *r->at++;
    if (first <= 0x7f)
        return PyLong_FromLong(first);
    if (first >= 0xe0)
        return PyLong_FromLong((int8_t)first);
    if (first >= 0xa0 && first <= 0xbf)
        return wire_str(r, first & 0x1f, status);
    if (first >= 0x90 && first <= 0x9f)
        return wire_list(r, first & 0x0f, depth_left, status);
    if (first <= 0x8f)
        return wire_map(r, first & 0x0f, depth_left, status);
    static const uint8_t header[32] = {0, 0, 0, 0, 1, 2, 4, 0, 0, 0, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4};
    size_t width = header[first - 0xc0];
    if (!wire_has(r, width))
        return wire_give_up(status, WIRE_SHORT);
    const uint8_t *p = r->at;
    r->at += width;
    switch (first) {
    case 0xc0: Py_RETURN_NONE;
    case 0xc2: Py_RETURN_FALSE;
    case 0xc3: Py_RETURN_TRUE;
    case 0xc4: return wire_bin(r, p[0], status);
    case 0xc5: return wire_bin(r, wire_u16(p), status);
    case 0xc6: return wire_bin(r, wire_u32(p), status);
    case 0xca: {
        uint32_t bits = wire_u32(p);
        float number;
        memcpy(&number, &bits, 4);
        return PyFloat_FromDouble((double)number);
    }
    case 0xcb: {
        uint64_t bits = wire_u64(p);
        double number;
        memcpy(&number, &bits, 8);
        return PyFloat_FromDouble(number);
    }
    case 0xcc: return PyLong_FromLong(p[0]);
    case 0xcd: return PyLong_FromLong(wire_u16(p));
    case 0xce: return PyLong_FromUnsignedLong(wire_u32(p));
    case 0xcf: return PyLong_FromUnsignedLongLong(wire_u64(p));
    case 0xd0: return PyLong_FromLong((int8_t)p[0]);
    case 0xd1: return PyLong_FromLong((int16_t)wire_u16(p));
    case 0xd2: return PyLong_FromLong((int32_t)wire_u32(p));
    case 0xd3: return PyLong_FromLongLong((int64_t)wire_u64(p));
    case 0xd9: return wire_str(r, p[0], status);
    case 0xda: return wire_str(r, wire_u16(p), status);
    case 0xdb: return wire_str(r, wire_u32(p), status);
    case 0xdc: return wire_list(r, wire_u16(p), depth_left, status);
    case 0xdd: return wire_list(r, wire_u32(p), depth_left, status);
    case 0xde: return wire_map(r, wire_u16(p), depth_left, status);
    case 0xdf: return wire_map(r, wire_u32(p), depth_left, status);
    default: return wire_give_up(status, WIRE_ODD); /* extensions, and the byte that MessagePack does not have */
    }
}

/* ---- the envelope of a request */

typedef struct {
    uint32_t msgid;
    const uint8_t *name;
    size_t name_length;
    uint32_t count; /* of its params; the reader stands at the first one */
} wire_envelope;

/* Read `[0, msgid, "name", [` ; ODD for every other message. */
static inline int wire_request(wire_reader *r, wire_envelope *e)
{
    const uint8_t *p = r->at, *end = r->end;
    if (end - p < 4)
        return p < end && p[0] != 0x94 ? WIRE_ODD : WIRE_SHORT;
    if (p[0] != 0x94 || p[1] != 0)
        return WIRE_ODD;
    p += 2;
    uint8_t first = *p++;
    if (first <= 0x7f)
        e->msgid = first;
    else if (first == 0xcc) {
        if (end - p < 1)
            return WIRE_SHORT;
        e->msgid = *p++;
    } else if (first == 0xcd) {
        if (end - p < 2)
            return WIRE_SHORT;
        e->msgid = wire_u16(p);
        p += 2;
    } else if (first == 0xce) {
        if (end - p < 4)
            return WIRE_SHORT;
        e->msgid = wire_u32(p);
        p += 4;
    } else
        return WIRE_ODD;
    if (p >= end)
        return WIRE_SHORT;
    first = *p++;
    if (first >= 0xa0 && first <= 0xbf)
        e->name_length = first & 0x1f;
    else if (first == 0xd9) {
        if (p >= end)
            return WIRE_SHORT;
        e->name_length = *p++;
    } else
        return WIRE_ODD;
    if ((size_t)(end - p) <= e->name_length)
        return WIRE_SHORT;
    e->name = p;
    p += e->name_length;
    first = *p++;
    if (first >= 0x90 && first <= 0x9f)
        e->count = first & 0x0f;
    else
        return WIRE_ODD;
    r->at = p;
    return WIRE_OK;
}

/* ---- packing */

typedef struct {
    uint8_t *bytes;
    size_t start, end, room; /* what counts lies from start to end */
} wire_buffer;

static inline int buffer_reserve(wire_buffer *b, size_t more)
{
    if (b->end + more <= b->room)
        return 0;
    if (b->start) {
        memmove(b->bytes, b->bytes + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
        if (b->end + more <= b->room)
            return 0;
    }
    size_t room = b->room ? b->room : 256;
    while (room < b->end + more)
        room *= 2;
    uint8_t *bytes = realloc(b->bytes, room);
    if (!bytes)
        return -1;
    b->bytes = bytes;
    b->room = room;
    return 0;
}

static inline int buffer_add(wire_buffer *b, const void *bytes, size_t length)
{
    if (buffer_reserve(b, length))
        return -1;
    memcpy(b->bytes + b->end, bytes, length);
    b->end += length;
    return 0;
}

static inline void buffer_free(wire_buffer *b)
{
    free(b->bytes);
    memset(b, 0, sizeof *b);
}

static inline uint8_t *put_u16(uint8_t *p, uint8_t first, uint16_t number)
{
    p[0] = first;
    p[1] = (uint8_t)(number >> 8);
    p[2] = (uint8_t)number;
    return p + 3;
}
static inline uint8_t *put_u32(uint8_t *p, uint8_t first, uint32_t number)
{
    p[0] = first;
    number = __builtin_bswap32(number);
    memcpy(p + 1, &number, 4);
    return p + 5;
}
static inline uint8_t *put_u64(uint8_t *p, uint8_t first, uint64_t number)
{
    p[0] = first;
    number = __builtin_bswap64(number);
    memcpy(p + 1, &number, 8);
    return p + 9;
}
static inline uint8_t *put_unsigned(uint8_t *p, uint64_t number)
{
    if (number <= 0x7f) {
        *p = (uint8_t)number;
        return p + 1;
    }
    if (number <= 0xff) {
        p[0] = 0xcc;
        p[1] = (uint8_t)number;
        return p + 2;
    }
    if (number <= 0xffff)
        return put_u16(p, 0xcd, (uint16_t)number);
    if (number <= 0xffffffff)
        return put_u32(p, 0xce, (uint32_t)number);
    return put_u64(p, 0xcf, number);
}
static inline uint8_t *put_signed(uint8_t *p, int64_t number)
{
    if (number >= 0)
        return put_unsigned(p, (uint64_t)number);
    if (number >= -32) {
        *p = (uint8_t)number;
        return p + 1;
    }
    if (number >= INT8_MIN) {
        p[0] = 0xd0;
        p[1] = (uint8_t)number;
        return p + 2;
    }
    if (number >= INT16_MIN)
        return put_u16(p, 0xd1, (uint16_t)number);
    if (number >= INT32_MIN)
        return put_u32(p, 0xd2, (uint32_t)number);
    return put_u64(p, 0xd3, (uint64_t)number);
}

static inline uint8_t *put_str_header(uint8_t *p, size_t length)
{
    if (length <= 31) {
        *p = (uint8_t)(0xa0 | length);
        return p + 1;
    }
    if (length <= 0xff) {
        p[0] = 0xd9;
        p[1] = (uint8_t)length;
        return p + 2;
    }
    if (length <= 0xffff)
        return put_u16(p, 0xda, (uint16_t)length);
    return put_u32(p, 0xdb, (uint32_t)length);
}
static inline uint8_t *put_bin_header(uint8_t *p, size_t length)
{
    if (length <= 0xff) {
        p[0] = 0xc4;
        p[1] = (uint8_t)length;
        return p + 2;
    }
    if (length <= 0xffff)
        return put_u16(p, 0xc5, (uint16_t)length);
    return put_u32(p, 0xc6, (uint32_t)length);
}

static int wire_pack(wire_buffer *b, PyObject *value, int depth_left);

static inline int pack_block(wire_buffer *b, const char *bytes, Py_ssize_t length, int is_str)
{
    if ((size_t)length > UINT32_MAX)
        return WIRE_ODD;
    if (buffer_reserve(b, (size_t)length + 5))
        return WIRE_ODD; /* msgpack may raise the MemoryError */
    uint8_t *p = b->bytes + b->end;
    p = is_str ? put_str_header(p, (size_t)length) : put_bin_header(p, (size_t)length);
    memcpy(p, bytes, (size_t)length);
    b->end = (size_t)(p - b->bytes) + (size_t)length;
    return WIRE_OK;
}

static int pack_str(wire_buffer *b, PyObject *value)
{
    if (PyUnicode_IS_COMPACT_ASCII(value))
        return pack_block(b, (const char *)PyUnicode_1BYTE_DATA(value), PyUnicode_GET_LENGTH(value), 1);
    PyObject *bytes = PyUnicode_AsEncodedString(value, "utf-8", "surrogateescape");
    if (!bytes) {
        PyErr_Clear();
        return WIRE_ODD;
    }
    int status = pack_block(b, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes), 1);
    Py_DECREF(bytes);
    return status;
}

static int pack_long(wire_buffer *b, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (buffer_reserve(b, 9))
        return WIRE_ODD;
    uint8_t *p = b->bytes + b->end;
    if (!overflow)
        p = put_signed(p, number);
    else {
        unsigned long long big = overflow > 0 ? PyLong_AsUnsignedLongLong(value) : (unsigned long long)-1;
        if (overflow < 0 || (big == (unsigned long long)-1 && PyErr_Occurred())) {
            PyErr_Clear();
            return WIRE_ODD;
        }
        p = put_unsigned(p, big);
    }
    b->end = (size_t)(p - b->bytes);
    return WIRE_OK;
}

static int pack_items(wire_buffer *b, PyObject **items, Py_ssize_t count, int depth_left)
{
    if (depth_left <= 0 || buffer_reserve(b, 5))
        return WIRE_ODD;
    uint8_t *p = b->bytes + b->end;
    if (count <= 15)
        *p++ = (uint8_t)(0x90 | count);
    else if (count <= 0xffff)
        p = put_u16(p, 0xdc, (uint16_t)count);
    else if ((size_t)count <= UINT32_MAX)
        p = put_u32(p, 0xdd, (uint32_t)count);
    else
        return WIRE_ODD;
    b->end = (size_t)(p - b->bytes);
    for (Py_ssize_t i = 0; i < count; i++) {
        int status = wire_pack(b, items[i], depth_left - 1);
        if (status)
            return status;
    }
    return WIRE_OK;
}

static int pack_dict(wire_buffer *b, PyObject *value, int depth_left)
{
    Py_ssize_t count = PyDict_GET_SIZE(value), place = 0;
    if (depth_left <= 0 || buffer_reserve(b, 5) || (size_t)count > UINT32_MAX)
        return WIRE_ODD;
    uint8_t *p = b->bytes + b->end;
    if (count <= 15)
        *p++ = (uint8_t)(0x80 | count);
    else if (count <= 0xffff)
        p = put_u16(p, 0xde, (uint16_t)count);
    else
        p = put_u32(p, 0xdf, (uint32_t)count);
    b->end = (size_t)(p - b->bytes);
    PyObject *key, *item;
    while (PyDict_Next(value, &place, &key, &item)) { /* no code of anybody's runs meanwhile: exact types alone */
        int status = wire_pack(b, key, depth_left - 1);
        if (!status)
            status = wire_pack(b, item, depth_left - 1);
        if (status)
            return status;
    }
    return WIRE_OK;
}

/* Append `value`; what was appended of it before a status other than WIRE_OK is the caller's to take back. */
static int wire_pack(wire_buffer *b, PyObject *value, int depth_left)
{
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyUnicode_Type)
        return pack_str(b, value);
    if (type == &PyLong_Type)
        return pack_long(b, value);
    if (value == Py_None || value == Py_True || value == Py_False) {
        if (buffer_reserve(b, 1))
            return WIRE_ODD;
        b->bytes[b->end++] = value == Py_None ? 0xc0 : value == Py_True ? 0xc3 : 0xc2;
        return WIRE_OK;
    }
    if (type == &PyBytes_Type)
        return pack_block(b, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), 0);
    if (type == &PyFloat_Type) {
        double number = PyFloat_AS_DOUBLE(value);
        uint64_t bits;
        memcpy(&bits, &number, 8);
        if (buffer_reserve(b, 9))
            return WIRE_ODD;
        b->end = (size_t)(put_u64(b->bytes + b->end, 0xcb, bits) - b->bytes);
        return WIRE_OK;
    }
    if (type == &PyDict_Type)
        return pack_dict(b, value, depth_left);
    if (type == &PyList_Type)
        return pack_items(b, ((PyListObject *)value)->ob_item, PyList_GET_SIZE(value), depth_left);
    if (type == &PyTuple_Type)
        return pack_items(b, ((PyTupleObject *)value)->ob_item, PyTuple_GET_SIZE(value), depth_left);
    return WIRE_ODD;
}

/* Append `[1, msgid, nil, value]`; on any other status than WIRE_OK nothing was appended. */
static inline int wire_response(wire_buffer *b, uint32_t msgid, PyObject *value)
{
    if (buffer_reserve(b, 8))
        return WIRE_ODD;
    size_t before = b->end - b->start;
    uint8_t *p = b->bytes + b->end;
    *p++ = 0x94;
    *p++ = 1;
    p = put_unsigned(p, msgid);
    *p++ = 0xc0;
    b->end = (size_t)(p - b->bytes);
    int status = wire_pack(b, value, PACK_DEPTH);
    if (status)
        b->end = b->start + before;
    return status;
}

#endif
