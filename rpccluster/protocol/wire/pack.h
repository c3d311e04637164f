/* Values to bytes. A part of `wire.h`. */

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
        room += room < 1 << 20 ? room : room / 4; /* of a large one less is left unused */
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
    int was_enabled = quiet_begin();
    PyObject *bytes = PyUnicode_AsEncodedString(value, "utf-8", "surrogateescape");
    if (!bytes)
        PyErr_Clear();
    quiet_end(was_enabled);
    if (!bytes)
        return WIRE_ODD;
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
        int was_enabled = quiet_begin();
        unsigned long long big = overflow > 0 ? PyLong_AsUnsignedLongLong(value) : (unsigned long long)-1;
        int is_odd = overflow < 0 || (big == (unsigned long long)-1 && PyErr_Occurred());
        PyErr_Clear();
        quiet_end(was_enabled);
        if (is_odd)
            return WIRE_ODD;
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

/* ---- a request, in parts: its head, and what goes before and behind the method and params of one with a deadline */

static inline int wire_head(wire_buffer *b, uint32_t msgid)
{
    if (buffer_reserve(b, 8))
        return WIRE_ODD;
    uint8_t *p = b->bytes + b->end;
    *p++ = 0x94;
    *p++ = 0;
    b->end = (size_t)(put_unsigned(p, msgid) - b->bytes);
    return WIRE_OK;
}

static inline int wire_bounding(wire_buffer *b) { return buffer_add(b, "\xa8rpc.call\x93", 10) ? WIRE_ODD : WIRE_OK; }

static inline int wire_add_timeout(wire_buffer *b, double seconds)
{
    uint64_t bits;
    memcpy(&bits, &seconds, 8);
    if (buffer_add(b, "\x81\xa7timeout", 9) || buffer_reserve(b, 9))
        return WIRE_ODD;
    b->end = (size_t)(put_u64(b->bytes + b->end, 0xcb, bits) - b->bytes);
    return WIRE_OK;
}
