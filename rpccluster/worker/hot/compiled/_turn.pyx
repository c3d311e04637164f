# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The hot path, compiled: one epoll set with all connections of a worker, and one pass from bytes to replies.

The loop watches the set by one watcher. A turn of it: poll once, then for each connection receive, run each call at the
bytes where it stands, and send once. Waiting calls stay bytes: what a slice or a limit leaves over is kept as input of
its connection. `rpccluster.protocol.wire` reads and writes what is common; everything else (notifications, errors, rare
types, limits that were passed) goes the slow path of the Python engine, whole message by whole message, so that both
engines say the same.

Code of the service runs inside, and may block in any of its calls. So ``cur``, ``p`` and ``end`` belong to the turn and
not to a runner: ``p`` moves on before the call, and the next runner goes on there. The epoch shows a runner that it has
blocked; then it touches nothing but the output of its own call's connection. Outside of a drain there is no ``cur``.

The set is edge-triggered: ``readable`` remembers that the kernel may have more, until a recv falls short of what it
asked for. A connection with kept input, or that is readable, stands in a queue, unless a pause forbids it. Those whose
input is at most one recv go before those that go on. While others wait, a recv asks for little, and for as much more as
the last long message had: so long messages of many peers come whole, and no peer has thousands of short ones read.
"""

from __future__ import annotations

from collections import deque
from contextvars import Context


from rpccluster.errors import ProtocolError
from rpccluster.ledger.layout import (
    CHECK,
    INPUT_SHIFT,
    INPUT_WINDOW,
    LOW_PEEK_OFFSET,
    MASK,
    OUTPUT_WINDOW,
    PEEK_OFFSET,
    SENDING_AT,
    BegunKind,
    Flag,
)
from rpccluster.log import logger
from rpccluster.protocol.bounded import CALL, CANCEL, RESERVED
from rpccluster.protocol.closing import closing_request
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.shared import Partial, SharedDecoder, Undecodable
from rpccluster.protocol.skip import Skip, resumed
from rpccluster.leading.page import BEGINS_NS as _BEGINS_NS
from rpccluster.leading.page import ENDS_NS as _ENDS_NS
from rpccluster.leading.page import TOKEN as _TOKEN
from rpccluster.metrics.layout import BUCKET_NS as _BUCKET_NS
from rpccluster.metrics.layout import BUCKETS as _BUCKETS
from rpccluster.worker.hot.control.bounded import deadline
from rpccluster.worker.hot.control.terms import Expired, Terms
from rpccluster.worker.hot.led import lost_msgids, note_under_another, without_lost
from rpccluster.worker.hot.outbox import GATHER_BYTES, HIGH_WATER_BYTES, LARGE_REPLY_BYTES, LOW_WATER_BYTES
from rpccluster.worker.hot.repacking import NO_MESSAGE, packed_again
from rpccluster.worker.hot.room import NOBODY, Happened
from rpccluster.worker.service.leader_only import LED
from rpccluster.worker.service.later import HeldBack, Parked

__all__ = ["Bucket", "CallLimit", "Frame", "Ledger", "Port", "Turn", "View"]

from cython cimport final
from cpython.method cimport PyMethod_Check, PyMethod_GET_FUNCTION, PyMethod_GET_SELF
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memmove, memset


include "kernel.pxi"


cdef extern from "sizes.h":
    enum: EVENTS, SLICE_NS, CLOCK_EVERY, MOST_LIGHT, SPARE_BYTES, LARGE_CALL_BYTES, LIGHT_BYTES, LARGE_BYTES
    enum: RECEIVE_BYTES, RECEIVE_MORE_BYTES, RECEIVE_FEW_BYTES

cdef enum:
    MOST_PARAMS = 15

cdef enum:  # what a port's input is for
    READ = 0
    LAST = 1  # once more, then tell
    DISCARD = 2

cdef enum:
    RUNNING_CELL = 3

_BROKEN, _PEER_ENDED, _UNDECODABLE = Happened.BROKEN, Happened.PEER_ENDED, Happened.UNDECODABLE
_INCOMPLETE, _COMPLETE, _HEARD_LAST = Happened.INCOMPLETE, Happened.COMPLETE, Happened.HEARD_LAST
_PENDING, _NO_GREENLET, _HELD_BACK = Happened.PENDING, Happened.NO_GREENLET, Happened.HELD_BACK
_ANSWERED, _UNSENT, _SENT = Happened.ANSWERED, Happened.UNSENT, Happened.SENT
_HIGH_WATER, _LOW_WATER = Happened.HIGH_WATER, Happened.LOW_WATER

cdef bytes _CANCEL = CANCEL.encode()
cdef size_t _LARGE = LARGE_REPLY_BYTES, _GATHER = GATHER_BYTES, _HIGH = HIGH_WATER_BYTES, _LOW = LOW_WATER_BYTES


cdef Py_ssize_t BEGINS_NS = _BEGINS_NS, ENDS_NS = _ENDS_NS, TOKEN = _TOKEN


cdef inline uint64_t boot_ns() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_BOOTTIME, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


cdef inline int64_t now_ns() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef object take_error():
    """Take the exception that is set."""
    cdef PyObject *kind = NULL
    cdef PyObject *value = NULL
    cdef PyObject *traceback = NULL
    PyErr_Fetch(&kind, &value, &traceback)
    PyErr_NormalizeException(&kind, &value, &traceback)
    if traceback != NULL:
        PyException_SetTraceback(value, traceback)
    error = <object>value
    Py_XDECREF(kind)
    Py_XDECREF(value)
    Py_XDECREF(traceback)
    return error


include "counts.pxi"
include "bucket.pxi"
include "table.pxi"
include "frame.pxi"
include "ledger.pxi"
include "port.pxi"
include "turn.pxi"
