# cython: language_level=3, boundscheck=False, wraparound=False
"""Requests and replies in their common form, to and from bytes, for clients; no state, and one wait for a reply.

`rpccluster.protocol.compiled` chooses between this and none. What is not common, or not whole, each function leaves to
its caller, who has msgpack: so whatever a peer sends means the same with this and without.
"""

from __future__ import annotations

__all__ = [
    "FORM",
    "is_incomplete",
    "pack_body",
    "pack_request",
    "pack_requests",
    "read_reply",
    "receive_reply",
    "take_replies",
]

FORM = 2  # that of `rpccluster.protocol.compiled`

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from "Python.h":
    void Py_DECREF(PyObject *what)
    void PyErr_Clear()
    const Py_ssize_t PY_SSIZE_T_MAX

cdef extern from "<poll.h>" nogil:
    enum: POLLIN
    struct pollfd:
        int fd
        short events
    int poll(pollfd *descriptors, unsigned long count, int milliseconds)

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_DONTWAIT
    Py_ssize_t recv(int descriptor, void *data, size_t size, int flags)

cdef extern from "wire/wire.h":
    enum: WIRE_OK, WIRE_ODD, WIRE_FAILED, OUTLINE_SHORT
    ctypedef struct wire_outline:
        size_t at
    ctypedef struct wire_reader:
        const uint8_t *at
        const uint8_t *end
        int is_whole
    ctypedef struct wire_buffer:
        uint8_t *bytes
        size_t start
        size_t end
        size_t room
    void outline_begin(wire_outline *o, uint64_t *open, uint64_t max_size, uint32_t max_depth)
    int outline_advance(wire_outline *o, const uint8_t *data, size_t size)
    int wire_reply(wire_reader *r, uint32_t *msgid)
    PyObject *wire_decode(wire_reader *r, int depth_left, int *status)
    int wire_pack(wire_buffer *b, PyObject *value, int depth_left)
    int wire_head(wire_buffer *b, uint32_t msgid)
    int wire_bounding(wire_buffer *b)
    int wire_add_timeout(wire_buffer *b, double seconds)
    int buffer_reserve(wire_buffer *b, size_t more)
    int buffer_add(wire_buffer *b, const void *bytes, size_t length)
    void buffer_free(wire_buffer *b)

cdef enum:
    MOST_DEPTH = 60  # of a value that is common
    PACK_DEPTH = 400
    SPARE_BYTES = 65536  # a larger buffer is not kept
    HEAD_BYTES = 7  # an array of 4, REQUEST, and the msgid as a uint 32
    SHORT_BYTES = 8192  # of a reply that needs no memory of its own until it is decoded; a thread's stack has them
    LONG_BYTES = 65536  # that are received at once

cdef wire_buffer spare  # lent to one call at a time: another may run in the middle of one, by the garbage collector
memset(&spare, 0, sizeof(spare))


cdef inline wire_buffer borrow() noexcept:
    cdef wire_buffer buffer = spare
    memset(&spare, 0, sizeof(spare))
    buffer.start = buffer.end = 0
    return buffer


cdef inline void give_back(wire_buffer *buffer) noexcept:
    if spare.bytes == NULL and buffer.room <= SPARE_BYTES:
        memcpy(&spare, buffer, sizeof(spare))
    else:
        buffer_free(buffer)


cdef inline object finish(wire_buffer *buffer, int status):
    """Return the packed bytes; None if something in them is not common."""
    packed = PyBytes_FromStringAndSize(<char *>buffer.bytes, <Py_ssize_t>buffer.end) if status == WIRE_OK else None
    give_back(buffer)
    return packed


cdef inline int add(wire_buffer *buffer, object method, object params, int depth):
    cdef int status = wire_pack(buffer, <PyObject *>method, depth)
    return wire_pack(buffer, <PyObject *>params, depth) if status == WIRE_OK else status


def pack_body(method, params):
    """Pack a method and its params, as the body of a request; None if msgpack has to do it."""
    cdef wire_buffer buffer = borrow()
    cdef int status = add(&buffer, method, params, PACK_DEPTH)
    return finish(&buffer, status)


def pack_request(uint32_t msgid, method, params, seconds=None, Py_ssize_t max_size=PY_SSIZE_T_MAX, int max_depth=PACK_DEPTH):
    """Pack a request, which the server ends after ``seconds`` if that is not None; None if msgpack has to do it.

    So it has with one of more than ``max_size`` bytes, or with ``params`` of more than ``max_depth`` levels.
    """
    cdef wire_buffer buffer = borrow()
    cdef int status = wire_head(&buffer, msgid)
    if status == WIRE_OK and seconds is not None:
        status = wire_bounding(&buffer)
    if status == WIRE_OK:
        status = add(&buffer, method, params, min(max_depth, PACK_DEPTH))
    if status == WIRE_OK and seconds is not None:
        status = wire_add_timeout(&buffer, seconds)
    return finish(&buffer, status if <Py_ssize_t>buffer.end <= max_size else WIRE_ODD)


def pack_requests(list msgids, list bodies, bytes before, bytes behind):
    """Make the requests of ``bodies``, each between ``before`` and ``behind``. Returns them, and where each one ends.

    Returns None if one of the bodies may have nothing around it: it is no plain bytes, or names a method of the
    package's own.
    """
    cdef Py_ssize_t place
    cdef size_t size = 0
    cdef size_t around = HEAD_BYTES + PyBytes_GET_SIZE(before) + PyBytes_GET_SIZE(behind)
    cdef uint32_t msgid
    cdef char *at
    for body in bodies:
        if not PyBytes_CheckExact(body) or (around > HEAD_BYTES and is_own(body)):
            return None
        size += around + PyBytes_GET_SIZE(body)
    packed = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
    at = PyBytes_AS_STRING(packed)
    cdef char *first = at
    ends = []
    for place in range(len(bodies)):
        msgid = msgids[place]
        at[0], at[1], at[2] = <char>0x94, 0, <char>0xce
        at[3], at[4], at[5], at[6] = <char>(msgid >> 24), <char>(msgid >> 16), <char>(msgid >> 8), <char>msgid
        at += HEAD_BYTES
        at = put(put(put(at, before), bodies[place]), behind)
        ends.append(at - first)
    return packed, ends


cdef inline char *put(char *at, object part) noexcept:
    memcpy(at, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
    return at + PyBytes_GET_SIZE(part)


cdef inline bint is_own(object body) noexcept:
    cdef const char *first = PyBytes_AS_STRING(body)
    return PyBytes_GET_SIZE(body) < 6 or memcmp(first + 1, b"rpc.", 4) == 0 or memcmp(first + 2, b"rpc.", 4) == 0


def read_reply(bytes data, uint32_t msgid, Py_ssize_t max_size):
    """Return the reply that ``data`` is, if it is exactly the common one to the request ``msgid``, else None.

    A message of more than ``max_size`` bytes is not common.
    """
    return reply_in(<const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), msgid, max_size)


def receive_reply(int descriptor, int milliseconds, Py_ssize_t max_size, uint32_t msgid):
    """Receive what comes next, and return it as `read_reply` does if it can; if not, the bytes, b"" at the end.

    Waits for them by poll(2), if ``milliseconds`` are not negative, else as long as the socket's own timeout lets it.
    Returns None if nothing came, if that has failed, or if a signal came first, whose handler has run.
    """
    cdef uint8_t short_one[SHORT_BYTES]
    cdef pollfd waited
    cdef int came = 1
    cdef Py_ssize_t size = -1
    waited.fd, waited.events = descriptor, POLLIN
    with nogil:
        if milliseconds >= 0:
            came = poll(&waited, 1, milliseconds)
        if came > 0:
            size = recv(descriptor, short_one, SHORT_BYTES, 0 if milliseconds < 0 else MSG_DONTWAIT)
    if size < 0:
        PyErr_CheckSignals()
        return None  # and the descriptor is not used any more: a handler may have closed it
    reply = reply_in(short_one, size, msgid, max_size) if size < SHORT_BYTES else None
    if reply is not None:
        return reply
    if size < SHORT_BYTES:
        return PyBytes_FromStringAndSize(<char *>short_one, size)
    data = with_more(descriptor, short_one)
    reply = reply_in(<const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), msgid, max_size)
    return data if reply is None else reply


cdef object with_more(int descriptor, const uint8_t *first):
    """Return the first bytes of a long reply, and what has come behind them."""
    more = PyBytes_FromStringAndSize(NULL, LONG_BYTES)
    memcpy(PyBytes_AS_STRING(more), first, SHORT_BYTES)
    cdef Py_ssize_t size = recv(descriptor, PyBytes_AS_STRING(more) + SHORT_BYTES, LONG_BYTES - SHORT_BYTES, MSG_DONTWAIT)
    return more[: SHORT_BYTES + max(size, 0)]  # what has failed fails again


cdef object reply_in(const uint8_t *data, Py_ssize_t size, uint32_t msgid, Py_ssize_t max_size):
    cdef wire_reader reader
    cdef uint32_t found
    reader.at, reader.end, reader.is_whole = data, data + size, False
    if size > max_size or wire_reply(&reader, &found) != WIRE_OK or found != msgid:
        return None
    result = decoded(&reader)
    if result is NOTHING:
        return None
    return [1, msgid, None, result] if reader.at == reader.end else None


def take_replies(bytes data, dict table, list ended, answered, Py_ssize_t max_size):
    """Give each call of ``table`` that has a common reply in ``data`` its ``value`` and the ``state`` ``answered``.

    It leaves the table and is added to ``ended``. Returns how many bytes were taken: up to the first message that is
    not common, not whole, larger than ``max_size``, or answers none of these calls.
    """
    cdef wire_reader reader
    cdef uint32_t msgid
    cdef const uint8_t *first
    cdef Py_ssize_t taken = 0
    begin(&reader, data)
    first = reader.at
    while reader.at < reader.end and wire_reply(&reader, &msgid) == WIRE_OK:
        result = decoded(&reader)
        if result is NOTHING or reader.at - first - taken > max_size:
            break
        call = table.pop(msgid, None)
        if call is None:
            break
        call.value = result
        call.state = answered
        ended.append(call)
        taken = reader.at - first
    return taken


def is_incomplete(bytes data, uint64_t max_size):
    """Return whether ``data`` is the beginning of a message that passes no limit so far."""
    cdef uint64_t open[MOST_DEPTH + 3]
    cdef wire_outline outline
    outline_begin(&outline, open, max_size, MOST_DEPTH)
    return outline_advance(&outline, <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)) == OUTLINE_SHORT


cdef object NOTHING = object()  # in place of a value that is not common, not whole, or has no room


cdef inline object decoded(wire_reader *reader):
    cdef int status
    cdef PyObject *value = wire_decode(reader, MOST_DEPTH, &status)
    if value == NULL:
        if status == WIRE_FAILED:
            PyErr_Clear()
        return NOTHING
    result = <object>value
    Py_DECREF(value)
    return result


cdef inline void begin(wire_reader *reader, bytes data) noexcept:
    reader.at = <const uint8_t *>PyBytes_AS_STRING(data)
    reader.end = reader.at + PyBytes_GET_SIZE(data)
    reader.is_whole = False
