/* Values from bytes, and the envelope of a request. A part of `wire.h`. */

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

/* Decode as `wire_decode` does, with no collection of garbage meanwhile: input that other greenlets go on with. */
static inline PyObject *wire_decode_quietly(wire_reader *r, int depth_left, int *status)
{
    uint8_t first = r->at < r->end ? *r->at : 0;
    if (first <= 0x7f || first >= 0xe0 || (first >= 0xc0 && first <= 0xd8)) /* no container, and no str */
        return wire_decode(r, depth_left, status);
    int was_enabled = quiet_begin();
    PyObject *value = wire_decode(r, depth_left, status);
    quiet_end(was_enabled);
    return value;
}

/* ---- the envelope of a request, and that of a call with a deadline inside of one */

typedef struct {
    uint32_t msgid;
    const uint8_t *name;
    size_t name_length;
    uint32_t count; /* of its params; the reader stands at the first one */
} wire_envelope;

/* Read `"name", [` ; ODD for every other beginning of a call. */
static inline int wire_target(wire_reader *r, wire_envelope *e)
{
    const uint8_t *p = r->at, *end = r->end;
    if (p >= end)
        return WIRE_SHORT;
    uint8_t first = *p++;
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

static inline int wire_msgid(const uint8_t **at, const uint8_t *end, uint32_t *msgid)
{
    const uint8_t *p = *at;
    uint8_t first = *p++;
    if (first <= 0x7f)
        *msgid = first;
    else if (first == 0xcc) {
        if (end - p < 1)
            return WIRE_SHORT;
        *msgid = *p++;
    } else if (first == 0xcd) {
        if (end - p < 2)
            return WIRE_SHORT;
        *msgid = wire_u16(p);
        p += 2;
    } else if (first == 0xce) {
        if (end - p < 4)
            return WIRE_SHORT;
        *msgid = wire_u32(p);
        p += 4;
    } else
        return WIRE_ODD;
    *at = p;
    return WIRE_OK;
}

/* Read `[0, msgid, "name", [` ; ODD for every other message. */
static inline int wire_request(wire_reader *r, wire_envelope *e)
{
    const uint8_t *p = r->at, *end = r->end;
    if (end - p < 4)
        return p < end && p[0] != 0x94 ? WIRE_ODD : WIRE_SHORT;
    if (p[0] != 0x94 || p[1] != 0)
        return WIRE_ODD;
    p += 2;
    int status = wire_msgid(&p, end, &e->msgid);
    if (status != WIRE_OK)
        return status;
    r->at = p;
    return wire_target(r, e);
}

/* Read `{"timeout": S}`, all that most callers say of a deadline; ODD for every other value. */
static inline int wire_timeout(wire_reader *r, double *seconds)
{
    static const uint8_t begin[9] = "\x81\xa7timeout";
    size_t left = (size_t)(r->end - r->at);
    if (memcmp(r->at, begin, left < sizeof begin ? left : sizeof begin))
        return WIRE_ODD;
    if (left <= sizeof begin)
        return WIRE_SHORT;
    const uint8_t *p = r->at + sizeof begin;
    uint8_t first = *p++;
    if (first <= 0x7f)
        *seconds = first;
    else if (first != 0xcb)
        return WIRE_ODD;
    else if (r->end - p < 8)
        return WIRE_SHORT;
    else {
        uint64_t bits = wire_u64(p);
        memcpy(seconds, &bits, 8);
        p += 8;
    }
    if (!(*seconds > -LONGEST_SECONDS && *seconds < LONGEST_SECONDS)) /* also if it is no number */
        return WIRE_ODD;
    r->at = p;
    return WIRE_OK;
}

/* Read `[1, msgid, nil, ` of a reply; ODD for every other message. */
static inline int wire_reply(wire_reader *r, uint32_t *msgid)
{
    const uint8_t *p = r->at, *end = r->end;
    if (end - p < 3)
        return p < end && p[0] != 0x94 ? WIRE_ODD : WIRE_SHORT;
    if (p[0] != 0x94 || p[1] != 1)
        return WIRE_ODD;
    p += 2;
    int status = wire_msgid(&p, end, msgid);
    if (status != WIRE_OK)
        return status;
    if (p >= end)
        return WIRE_SHORT;
    if (*p++ != 0xc0)
        return WIRE_ODD;
    r->at = p;
    return WIRE_OK;
}
