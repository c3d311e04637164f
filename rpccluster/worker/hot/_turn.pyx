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
input is at most one recv go before those that go on.
"""

from __future__ import annotations

from collections import deque
from contextvars import Context


from rpccluster.errors import ProtocolError
from rpccluster.log import logger
from rpccluster.protocol.closing import closing_request
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.shared import Partial, SharedDecoder, Undecodable
from rpccluster.protocol.skip import Skip, resumed
from rpccluster.worker.hot.outbox import GATHER_BYTES, HIGH_WATER_BYTES, LARGE_REPLY_BYTES, LOW_WATER_BYTES
from rpccluster.worker.hot.repacking import NO_MESSAGE, packed_again
from rpccluster.worker.hot.room import NOBODY, Happened

__all__ = ["Frame", "Port", "Turn"]

from cpython.method cimport PyMethod_Check, PyMethod_GET_FUNCTION, PyMethod_GET_SELF
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memmove, memset


cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void *ptr
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLL_CLOEXEC
    unsigned int EPOLLET
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int what, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int timeout)

cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL, MSG_DONTWAIT
    ssize_t recv(int fd, void *bytes, size_t length, int flags)
    ssize_t send(int fd, const void *bytes, size_t length, int flags)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "Python.h":
    PyObject *PyObject_Vectorcall(PyObject *function, PyObject **arguments, size_t count, PyObject *names)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    void PyErr_Fetch(PyObject **kind, PyObject **value, PyObject **traceback)
    void PyErr_NormalizeException(PyObject **kind, PyObject **value, PyObject **traceback)
    int PyException_SetTraceback(PyObject *value, PyObject *traceback)
    Py_ssize_t PyObject_Size(PyObject *what)

cdef extern from "../../protocol/wire.h":
    enum: WIRE_OK, WIRE_SHORT, WIRE_ODD, WIRE_FAILED, OUTLINE_WHOLE, OUTLINE_SHORT, OUTLINE_REFUSED
    ctypedef struct wire_outline:
        size_t at
        size_t resume
        uint64_t owed
        uint32_t depth
        uint64_t *open
    ctypedef struct wire_reader:
        const uint8_t *at
        const uint8_t *end
        int is_whole
    ctypedef struct wire_envelope:
        uint32_t msgid
        const uint8_t *name
        size_t name_length
        uint32_t count
    ctypedef struct wire_buffer:
        uint8_t *bytes
        size_t start
        size_t end
        size_t room
    void outline_begin(wire_outline *o, uint64_t *open, uint64_t max_size, uint32_t max_depth)
    int outline_advance(wire_outline *o, const uint8_t *data, size_t size)
    int wire_request(wire_reader *r, wire_envelope *e)
    PyObject *wire_decode(wire_reader *r, int depth_left, int *status)
    int wire_response(wire_buffer *b, uint32_t msgid, PyObject *value)
    int buffer_reserve(wire_buffer *b, size_t more)
    int buffer_add(wire_buffer *b, const void *bytes, size_t length)
    void buffer_free(wire_buffer *b)


cdef enum:
    EVENTS = 256
    MOST_PARAMS = 15
    SLICE_NS = 1000000
    CLOCK_EVERY = 8
    MOST_LIGHT = 8  # connections in a row before one that goes on with kept input
    RECEIVE_BYTES = 262144
    RECEIVE_FEW_BYTES = 2048  # while others wait
    SPARE_BYTES = 262144  # a larger buffer is not kept
    LARGE_CALL_BYTES = 65536
    LIGHT_BYTES = 1024  # a longer message may take its time
    LARGE_BYTES = 16384  # kept input above this takes memory that is worth giving back

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

cdef size_t _LARGE = LARGE_REPLY_BYTES, _GATHER = GATHER_BYTES, _HIGH = HIGH_WATER_BYTES, _LOW = LOW_WATER_BYTES


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


cdef struct Entry:  # a method, by its name's bytes
    uint64_t hash
    const uint8_t *bytes
    size_t length
    PyObject *name
    PyObject *function
    PyObject *self  # NULL if the function is no bound method
    uint64_t number


cdef inline uint64_t hash_of(const uint8_t *bytes, size_t length) noexcept:
    cdef uint64_t found = 14695981039346656037ULL
    cdef size_t at
    for at in range(length):
        found = (found ^ bytes[at]) * 1099511628211ULL
    return found


cdef class Table:
    """The methods by the bytes of their names; replaced as a whole when they are wrapped anew."""

    cdef Entry *entries
    cdef size_t mask
    cdef list kept  # keeps what the entries point to

    def __cinit__(self, methods, table, numbers):
        cdef size_t place, size = 16
        cdef Entry *entry
        while size < 4 * len(methods):
            size *= 2
        self.entries = <Entry *>malloc(size * sizeof(Entry))
        if self.entries == NULL:
            raise MemoryError
        memset(self.entries, 0, size * sizeof(Entry))
        self.mask = size - 1
        self.kept = []
        for name in methods:
            encoded = name.encode("utf-8", "surrogateescape")
            function = table[name]
            self.kept += [name, encoded, function]
            place = hash_of(encoded, len(encoded)) & self.mask
            while self.entries[place].function != NULL:
                place = (place + 1) & self.mask
            entry = &self.entries[place]
            entry.hash = hash_of(encoded, len(encoded))
            entry.bytes = <const uint8_t *><char *>encoded
            entry.length = len(encoded)
            entry.name = <PyObject *>name
            entry.number = numbers[name]
            if PyMethod_Check(function):
                entry.function = <PyObject *>PyMethod_GET_FUNCTION(function)
                entry.self = <PyObject *>PyMethod_GET_SELF(function)
            else:
                entry.function = <PyObject *>function

    def __dealloc__(self):
        free(self.entries)

    cdef Entry *find(self, const uint8_t *name, size_t length) noexcept:
        cdef uint64_t wanted = hash_of(name, length)
        cdef size_t place = wanted & self.mask
        cdef Entry *entry
        while True:
            entry = &self.entries[place]
            if entry.function == NULL:
                return NULL
            if entry.hash == wanted and entry.length == length and not memcmp(entry.bytes, name, length):
                return entry
            place = (place + 1) & self.mask


cdef class Frame:
    """What a runner runs: the connection, and the call, whose decoded form is made when it is asked for."""

    cdef public object port  # None while it waits for a call, or when its call was answered without it
    cdef object message, name, context
    cdef Table table  # where its runner finds methods
    cdef uint32_t msgid
    cdef int count  # of the params
    cdef PyObject *slots[MOST_PARAMS + 2]  # room for vectorcall, the method's self, the params

    def get_call(self):
        """Return the decoded call."""
        cdef int place
        if self.message is None and self.name is not None:
            params = [<object>self.slots[2 + place] for place in range(self.count)]
            self.message = [0, self.msgid, self.name, params]
        return self.message

    def set_call(self, message):
        """Keep ``message`` as the call, or forget it."""
        self.message = message
        self.name = None

    cdef void drop_params(self) noexcept:
        """Let go of the params; code of the service may run, and block, when one is deleted."""
        cdef int place, count = self.count
        self.count = 0
        self.name = self.message = None
        for place in range(count):
            Py_DECREF(<object>self.slots[2 + place])

    def __dealloc__(self):
        self.drop_params()


cdef class Port:
    """The input and the output of one socket: `Inbox` and `Outbox` of the Python engine in one."""

    cdef Turn turn
    cdef object listener, forward, rest, extra, afar
    cdef public object peer, closing_msgid
    cdef int fd
    cdef bint is_read, readable, hung_up, is_queued, is_dirty, has_more, is_partial, is_put_off, is_over, is_crowded, drops_rest
    cdef bint is_unsent, is_high
    cdef public bint is_closed, reports, was_heard
    cdef public Py_ssize_t held  # calls that are held back
    cdef int mode
    cdef Py_ssize_t count, gathered  # calls that are not answered; replies in `out` that are not counted off yet
    cdef wire_buffer kept, out
    cdef wire_outline *outline  # of the incomplete message in `kept`
    cdef size_t whole  # length of the first message in `kept`, where it is known to be whole
    cdef Port next

    def __cinit__(self, Turn turn, int fd, peer, listener):
        cdef epoll_event event
        self.turn = turn
        self.fd = fd
        self.peer = peer
        self.listener = listener
        self.is_read = True
        event.events = <uint32_t>(EPOLLIN | EPOLLRDHUP) | EPOLLET
        event.data.ptr = <void *>self
        if epoll_ctl(turn.epoll, EPOLL_CTL_ADD, fd, &event):
            raise OSError(errno, "cannot watch a connection")
        Py_INCREF(self)  # for the set, until `close`
        self.readable = True  # what came before it was watched

    def __dealloc__(self):
        buffer_free(&self.kept)
        buffer_free(&self.out)
        if self.outline != NULL:
            free(self.outline)

    # -- whether it is read

    def start(self):
        """Receive input from now on."""
        self.is_read = True
        self.mode = READ
        self.look_at_limit()
        self.turn.queue(self)

    def stop(self):
        """Receive nothing until `start`."""
        self.is_read = False

    def receive_last(self):
        """Receive once more, then report `Happened.HEARD_LAST`."""
        self.is_read = True
        self.mode = LAST
        self.turn.queue(self)

    def discard(self):
        """Wait for the peer's end, and drop all other input."""
        self.is_read = True
        self.mode = DISCARD
        self.forget_input()
        self.readable = True
        self.turn.queue(self)

    def receive(self):
        """Receive once, and keep the input for its turn."""
        if self.is_closed or self.turn.cur is self:
            return
        if self.rest is not None:
            self.turn.receive_rest(self, LARGE_BYTES)
        elif self.outline != NULL:
            self.turn.receive_partial(self, LARGE_BYTES)
        elif self.receive_into_kept(LARGE_BYTES) > 0 and not self.has_more:
            self.turn.look_at_kept(self)
        self.turn.queue(self)

    cdef void forget_input(self) noexcept:
        if self.kept.bytes != NULL:
            self.turn.room.handled_large = True
            self.turn.give_back(&self.kept, True)
        self.drop_outline()
        self.extra = self.rest = None
        self.has_more = False

    cdef void drop_outline(self) noexcept:
        if self.outline != NULL:
            free(self.outline)
            self.outline = NULL

    def close(self):
        """Stop for good, and drop what was kept; running calls are reported to nobody."""
        if self.is_closed:
            return
        self.is_closed = True
        epoll_ctl(self.turn.epoll, EPOLL_CTL_DEL, self.fd, NULL)
        Py_DECREF(self)
        self.is_read = self.readable = False
        self.listener = NOBODY  # or the two would keep each other until the garbage is collected
        if self is not self.turn.cur or not self.turn.is_in_kept:
            self.forget_input()
        if self.is_gone and self.count:
            self.turn.room.parked.drop(self)
        if self.is_unsent:
            self.turn.room.handled_large = True
        self.is_unsent = False
        if self.gathered:
            self.turn.mark_dirty(self)
        elif self.out.bytes != NULL:
            self.turn.give_back(&self.out, False)

    # -- calls that do not run yet

    @property
    def partial(self):
        """Whether input is kept; the Python decoder's state if that has it. None if there is none."""
        if self.rest is not None:
            return self.rest
        return True if self.is_partial or self.has_more else None

    def put_off(self):
        """Keep waiting and coming calls from running until `go_on`."""
        self.is_put_off = True

    def go_on(self):
        """Run the calls that were put off, and those that come."""
        self.is_put_off = False
        self.turn.queue(self)

    def drop_waiting(self):
        """Forget the calls that wait for their turn."""
        if self is self.turn.cur:
            self.turn.p = self.turn.end
        else:
            self.forget_input()

    def forget_partial(self):
        """Drop the incomplete call, of which nothing more will come."""
        self.drops_rest = True
        if self.rest is not None or (self.is_partial and not self.has_more and self is not self.turn.cur):
            self.rest = None
            self.drop_outline()
            if self.kept.bytes != NULL:
                self.turn.give_back(&self.kept, True)
        self.note_partial(False)

    cdef int note_partial(self, bint is_partial) except -1:
        """Tell the listener of an incomplete call that has begun, or that there is none any more."""
        if is_partial:
            self.is_partial = True
            self.listener.handle(_INCOMPLETE)
        elif self.is_partial:
            self.is_partial = False
            self.listener.handle(_COMPLETE)
        return 0

    def unbegun(self):
        """Return the calls that were put off."""
        return self.waiting() if self.is_put_off else []

    cdef list waiting(self):
        """Decode the calls that wait for their turn."""
        found = list(self.extra or ())
        if self.kept.bytes != NULL:
            data = self.kept.bytes[self.kept.start:self.kept.end]
            try:
                found += SharedDecoder(self.turn.bounds).decode(data)[0]
            except Undecodable as undecodable:
                found += undecodable.messages
        return found

    def queue_again(self, calls):
        """Queue ``calls``, which were withdrawn, before all others."""
        if calls:
            self.count -= len(calls)
            self.extra = deque([*calls, *(self.extra or ())])
        self.turn.queue(self)

    # -- moving

    def content(self, waiting):
        """Return all input that has led to no reply yet, as bytes; change nothing. ``waiting`` are the withdrawn calls.

        Raises as `packed_again` does.
        """
        calls = packed_again([*waiting, *(self.extra or ())])
        if self.closing_msgid is not None:
            calls.insert(0, closing_request(self.closing_msgid))  # as if it had not come yet
        rest = self.rest.data if self.rest is not None else b""
        kept = b""
        if self.kept.bytes != NULL:
            kept = self.kept.bytes[self.kept.start:self.kept.end]
            if resumed(kept, self.turn.bounds)[0] is not None:
                kept = NO_MESSAGE  # it looks like the state of a `Skip`, and is none
        return b"".join([rest, *calls, kept] if isinstance(self.rest, Skip) else [*calls, kept, rest])

    def restore(self, data):
        """Take in the `content` of a connection of another process."""
        self.was_heard = True  # where it comes from
        skip, data = resumed(data, self.turn.bounds)
        if data:
            self.add_kept(data)
        if skip is not None:
            self.rest = skip
            self.note_partial(True)
        self.turn.queue(self)

    cdef int add_kept(self, bytes data) except -1:
        if buffer_add(&self.kept, <char *>data, len(data)):
            raise MemoryError
        self.has_more = True
        return 0

    def unsent_content(self):
        """Return all unsent output."""
        return self.out.bytes[self.out.start:self.out.end] if self.out.bytes != NULL else b""

    def forward_to(self, forward):
        """Pass the replies of running calls to ``forward`` once this is closed, since the connection moves."""
        self.forward = forward

    def send_first(self, output):
        """Send the unsent output that another process has left."""
        cdef bytes data = bytes(output)
        if buffer_add(&self.out, <char *>data, len(data)):
            raise MemoryError
        self.send_out()

    # -- what has become of a call

    @property
    def pending(self):
        """Number of calls that are not answered yet; as many more as wait are counted as one."""
        return self.count + (1 if self.has_more or self.extra is not None else 0)

    def expect(self, count):
        """Count calls that other processes answer."""
        self.count = count

    @property
    def has_room_again(self):
        """Whether enough of ``max_pending_calls`` calls are answered to receive more."""
        return self.count <= self.turn.max_pending // 2

    @property
    def is_gone(self):
        """Whether the connection is closed and has not moved, so that replies are dropped."""
        return self.is_closed and self.forward is None

    @property
    def has_replies(self):
        """Whether replies wait to be sent at the end of this turn."""
        return self.gathered > 0

    @property
    def unsent(self):
        """True if output waits for the peer to read; None if none does."""
        return True if self.is_unsent else None

    @property
    def is_backed_up(self):
        """Whether the peer has left too much unread, and has not read most of it yet."""
        return self.is_high

    def put(self, reply):
        """Send ``reply`` with the others of this turn."""
        cdef bytes data = reply
        self.gathered += 1
        if self.is_closed:
            if self.afar is None:
                self.afar = []
            self.afar.append(data)
        elif buffer_add(&self.out, <char *>data, len(data)):
            raise MemoryError
        self.turn.mark_dirty(self)
        if self.out.end - self.out.start > _GATHER and not self.is_closed:
            self.turn.room.handled_large = True
            self.flush()

    def say(self, reply):
        """Send ``reply`` now, which answers no call."""
        self.count += 1
        self.put(reply)
        self.flush()

    def end_notification(self):
        """Count a notification that has run; it gets no reply."""
        self.count -= 1
        self.look_at_limit()
        if self.reports and not self.gathered and not self.is_closed:
            self.listener.handle(_ANSWERED)

    def await_closing(self, msgid):
        """Note that the peer asks for ``rpc.closing``. Returns False if it has asked before."""
        if self.closing_msgid is not None:
            return False
        self.closing_msgid = msgid
        self.turn.begun -= 1  # it is no call
        self.end_notification()
        return True

    def tell(self, happened):
        """Tell the listener that calls are held back, or are not any more."""
        self.is_crowded = happened is _HELD_BACK
        self.listener.handle(happened)
        if not self.is_crowded:
            self.turn.queue(self)

    def refuse(self, error):
        """Tell the listener that the input is no call, so that nothing behind it is run."""
        self.listener.refuse(error)

    cdef void look_at_limit(self) noexcept:
        """Let its calls run on once enough of them are answered."""
        if self.is_over and self.count <= self.turn.max_pending // 2:
            self.is_over = False
            self.turn.queue(self)

    # -- sending

    def flush(self):
        """Send the gathered replies, and report that, if wanted. Never raises, never blocks."""
        self.flush_out()

    cdef int flush_out(self) except -1:
        cdef Py_ssize_t count = self.gathered
        self.gathered = 0
        self.count -= count
        if self.is_closed:
            if self.afar is not None:
                afar, self.afar = self.afar, None
                if self.forward is not None:
                    self.forward(afar)
                else:
                    self.turn.room.dropped_replies += len(afar)
                count -= len(afar)
            if self.out.bytes != NULL:
                self.turn.give_back(&self.out, False)
            if self.is_gone:
                self.turn.room.dropped_replies += count
            return 0
        if count:
            self.look_at_limit()
            if self.out.end > self.out.start and not self.is_unsent:
                if self.send_out() < 0:
                    self.turn.room.dropped_replies += count
                    self.listener.handle(_BROKEN)
            elif self.is_unsent:
                self.look_at_water()
        if self.reports and not self.is_closed:
            self.listener.handle(_ANSWERED)
        return 0

    cdef int send_out(self) except -2:
        """Send what there is; keep what the kernel has no room for. Returns -1 if the socket is broken."""
        cdef ssize_t sent
        cdef size_t length = self.out.end - self.out.start
        cdef bint was_unsent = self.is_unsent
        while True:
            sent = send(self.fd, self.out.bytes + self.out.start, length, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent >= 0 or errno != EINTR:
                break
        if sent < 0:
            if errno != EAGAIN:
                self.turn.give_back(&self.out, False)
                return -1
            sent = 0
        if <size_t>sent == length:
            self.turn.give_back(&self.out, False)
            self.is_unsent = False
        else:
            self.out.start += <size_t>sent
            self.is_unsent = True
        if self.is_unsent != was_unsent:
            self.watch_output(self.is_unsent)
        if self.is_unsent:
            if not was_unsent or sent:
                self.listener.handle(_UNSENT)
            self.look_at_water()
        return 0

    cdef void watch_output(self, bint wanted) noexcept:
        cdef epoll_event event
        event.events = <uint32_t>(EPOLLIN | EPOLLRDHUP | (EPOLLOUT if wanted else 0)) | EPOLLET
        event.data.ptr = <void *>self
        epoll_ctl(self.turn.epoll, EPOLL_CTL_MOD, self.fd, &event)

    cdef int look_at_water(self) except -1:
        if not self.is_high and self.out.end - self.out.start > _HIGH:
            self.is_high = True
            self.listener.handle(_HIGH_WATER)
        return 0

    cdef int on_writable(self) except -1:
        """Go on with the unsent output."""
        if not self.is_unsent or self.is_closed:
            return 0
        if self.send_out() < 0:
            self.is_unsent = False
            self.listener.handle(_BROKEN)
            return 0
        if not self.is_unsent:
            self.turn.room.handled_large = True
            self.listener.handle(_SENT)
        if self.is_high and self.out.end - self.out.start < _LOW:
            self.is_high = False
            self.listener.handle(_LOW_WATER)
        if self.reports and not self.is_closed:
            self.listener.handle(_ANSWERED)
        return 0

    # -- receiving

    cdef ssize_t receive_into_kept(self, size_t most) except -2:
        """Receive behind the kept input. Returns the number of bytes, 0 at the peer's end, -1 for nothing."""
        cdef ssize_t length
        if buffer_reserve(&self.kept, most):
            raise MemoryError
        length = self.receive_at(self.kept.bytes + self.kept.end, most)
        if length > 0:
            self.kept.end += <size_t>length
        elif self.kept.end == self.kept.start:
            self.turn.give_back(&self.kept, True)
        return length

    cdef ssize_t receive_at(self, uint8_t *place, size_t most) except -2:
        """Receive once; tell the listener of an end or an error. Returns the number of bytes, or 0, or -1."""
        cdef ssize_t length
        while True:
            length = recv(self.fd, place, most, MSG_DONTWAIT)
            if length >= 0 or errno != EINTR:
                break
        if length > 0:
            if <size_t>length < most and not self.hung_up:
                self.readable = False
            self.was_heard = True
            return length
        self.readable = False
        if length == 0:
            self.listener.handle(_PEER_ENDED)
            return 0
        if errno != EAGAIN:
            self.listener.handle(_BROKEN)
        return -1


cdef class Turn:
    """All connections of a worker, and the runners' way through them."""

    cdef int epoll
    cdef epoll_event events[EVENTS]
    cdef uint8_t *buffer
    cdef Port cur  # whose input is worked through, from p to end
    cdef const uint8_t *p
    cdef const uint8_t *end
    cdef const uint8_t *whole_until  # the message at p is known to be whole up to here
    cdef bint is_in_kept  # p lies in the input that cur has kept
    cdef Port light, light_tail, more, more_tail  # two queues
    cdef wire_buffer spare_input, spare_output
    cdef list dirty
    cdef public long epoch
    cdef public int64_t begun
    cdef int64_t slice_end
    cdef int before_clock, light_in_a_row
    cdef bint must_poll
    cdef Table table, table_when_full
    cdef public bint only_again  # no other calls than those that were held back
    cdef Entry *shown
    cdef uint64_t[:] cells
    cdef uint64_t max_size
    cdef uint32_t max_depth
    cdef public Py_ssize_t max_pending
    cdef public object room, bounds, runners
    cdef object slow_path, decoder
    cdef object again  # calls that were held back, and may begin now
    cdef uint64_t *scratch

    def __cinit__(self):
        self.epoll = -1
        self.buffer = <uint8_t *>malloc(RECEIVE_BYTES)
        if self.buffer == NULL:
            raise MemoryError

    def __init__(self, room, cells, slow_path):
        """``slow_path`` runs what is no plain request."""
        self.room = room
        self.cells = cells
        self.slow_path = slow_path
        self.dirty = []
        self.again = deque()
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, "cannot make an epoll set")

    def __dealloc__(self):
        if self.epoll >= 0:
            close(self.epoll)
        free(self.buffer)
        free(self.scratch)
        buffer_free(&self.spare_input)
        buffer_free(&self.spare_output)

    def fileno(self):
        """Return the descriptor of the epoll set, which is readable when a connection is."""
        return self.epoll

    def set_bounds(self, bounds, max_pending):
        """Let ``bounds`` hold for each message, and ``max_pending`` for each connection."""
        self.bounds = bounds
        self.max_size, self.max_depth = bounds
        self.max_pending = max_pending
        free(self.scratch)
        self.scratch = <uint64_t *>malloc((self.max_depth + 3) * sizeof(uint64_t))
        if self.scratch == NULL:
            raise MemoryError

    def set_methods(self, methods, table, table_when_full, numbers):
        """Look up methods in ``table`` from now on; in ``table_when_full`` while all greenlets are taken."""
        self.table = Table(methods, table, numbers)
        self.table_when_full = Table(methods, table_when_full or table, numbers)
        self.shown = NULL

    def close(self):
        """Watch no connection any more."""
        if self.epoll >= 0:
            close(self.epoll)
        self.epoll = -1

    def leave_to_parent(self):
        """Forget everything, in a forked child."""
        self.close()
        self.epoch += 1
        self.cur = None
        self.light = self.light_tail = self.more = self.more_tail = None
        self.dirty = []

    # -- queues

    cdef void queue(self, Port port) noexcept:
        """Queue ``port`` if there is something to do for it, and have it done."""
        if self.push(port) and not self.room.is_scheduled:
            self.room.schedule()

    cdef bint push(self, Port port) noexcept:
        if port.is_queued or port.is_closed or port is self.cur or not port_has_work(port):
            return False
        port.is_queued = True
        if port.has_more or port.extra is not None:
            if self.more is None:
                self.more = port
            else:
                self.more_tail.next = port
            self.more_tail = port
        else:
            if self.light is None:
                self.light = port
            else:
                self.light_tail.next = port
            self.light_tail = port
        return True

    cdef Port pop(self):
        cdef Port port = self.light
        if port is not None and (self.more is None or self.light_in_a_row < MOST_LIGHT):
            self.light_in_a_row += 1
            self.light = port.next
            if self.light is None:
                self.light_tail = None
        else:
            port = self.more
            if port is None:
                return None
            self.light_in_a_row = 0
            self.more = port.next
            if self.more is None:
                self.more_tail = None
        port.next = None
        port.is_queued = False
        return port

    @property
    def has_work(self):
        """Whether a connection waits for its turn."""
        return self.cur is not None or self.light is not None or self.more is not None or bool(self.again)

    def run_again(self, calls):
        """Run calls that were held back, each with its outbox, before all others; a call may come as an iterator."""
        self.again.extend(calls)

    @property
    def has_dirty(self):
        """Whether replies wait to be sent."""
        return bool(self.dirty)

    def queued(self):
        """Return the connections that wait for their turn."""
        found = []
        for port in (self.light, self.more):
            while port is not None:
                found.append(port)
                port = (<Port>port).next
        return found

    def unanswered(self):
        """Return the decoded calls that wait for their turn, by connection."""
        return {port: (<Port>port).waiting() for port in self.queued()}

    def poll(self):
        """Let the next drain poll."""
        self.must_poll = True

    cdef int poll_now(self) except -1:
        """Queue the connections for which something has come."""
        cdef int count, place
        cdef uint32_t what
        cdef Port port
        cdef list writable = None
        self.must_poll = False
        count = epoll_wait(self.epoll, self.events, EVENTS, 0)
        for place in range(count):
            port = <Port>self.events[place].data.ptr
            what = self.events[place].events
            if what & <uint32_t>(EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
                port.readable = True
                if what & <uint32_t>(EPOLLRDHUP | EPOLLHUP | EPOLLERR):
                    port.hung_up = True
                self.push(port)
            if what & <uint32_t>(EPOLLOUT | EPOLLERR) and port.is_unsent:
                if writable is None:
                    writable = []
                writable.append(port)  # kept alive by it; its listener may do anything
        if count == EVENTS:
            self.must_poll = True
        if writable is not None:
            for port in writable:
                port.on_writable()
        return 0

    # -- buffers

    cdef void lend(self, wire_buffer *buffer, bint is_input) noexcept:
        cdef wire_buffer *spare = &self.spare_input if is_input else &self.spare_output
        if buffer.bytes == NULL and spare.bytes != NULL:
            buffer[0] = spare[0]
            memset(spare, 0, sizeof(wire_buffer))

    cdef void give_back(self, wire_buffer *buffer, bint is_input) noexcept:
        cdef wire_buffer *spare = &self.spare_input if is_input else &self.spare_output
        if buffer.bytes == NULL:
            return
        if spare.bytes == NULL and buffer.room <= SPARE_BYTES:
            spare[0] = buffer[0]
            spare.start = spare.end = 0
            memset(buffer, 0, sizeof(wire_buffer))
        else:
            buffer_free(buffer)

    cdef void mark_dirty(self, Port port) noexcept:
        if not port.is_dirty:
            port.is_dirty = True
            self.dirty.append(port)

    def send_dirty(self):
        """Send the replies that have gathered outside of their connection's turn."""
        cdef Port port
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for port in dirty:
                port.is_dirty = False
                port.flush_out()

    # -- the loop's side

    def begin_slice(self):
        """Begin a slice. Returns whether there is something to do for a runner."""
        self.slice_end = now_ns() + SLICE_NS
        self.before_clock = CLOCK_EVERY
        self.shown = NULL
        return self.must_poll or self.has_work

    def switched(self):
        """Take the turn back from a runner. Returns whether there is more to do, now, or after the loop has polled."""
        self.epoch += 1
        self.send_dirty()
        return self.has_work or self.must_poll

    @property
    def is_over(self):
        """Whether this slice is over."""
        return now_ns() > self.slice_end

    def keep(self):
        """Keep the input that is being worked through, until the loop has polled."""
        if self.cur is not None:
            self.keep_current()

    def hold_back(self, waiting):
        """Tell the connections that have something to run that all greenlets are taken."""
        cdef Port port
        self.keep()
        if self.must_poll:
            self.poll_now()
        for port in self.queued():
            if port.is_read and port.mode != DISCARD:
                while port.readable and port.is_read and not port.has_more and port.extra is None:
                    port.receive()
                if port.is_read and (port.has_more or port.extra is not None):
                    waiting.add(port.listener)
                    port.listener.handle(_NO_GREENLET)

    # -- the runners' side

    def run(self, runner):
        """Take calls until there are no more or another runner has them, then wait for work; end as a surplus one."""
        cdef Frame frame = runner.frame
        cdef long epoch
        runners = self.runners
        park = runners.hub.switch
        while True:
            epoch = self.epoch
            frame.table = self.table_when_full if runner is runners.usher else self.table
            try:
                self.take(frame, runner, epoch)
            except BaseException:  # no known fault; but without its runners a worker would serve nobody
                logger.critical("The engine failed in a call, whose connection is closed", exc_info=True)
                if frame.port is not None:
                    frame.port.refuse(ProtocolError("found a fault of the engine in one of its calls"))
            if self.epoch != epoch:
                frame.context = None
            frame.port = None
            frame.drop_params()
            if runners.retire(runner, self.epoch != epoch):
                return
            while True:
                try:
                    if park() is runners.the_end:
                        return
                    break
                except BaseException:  # a time limit or a kill that a call has left behind: it is over
                    continue

    cdef int take(self, Frame frame, runner, long epoch) except -1:
        """Run one call after another; the hot path."""
        cdef Port port
        cdef int status
        if frame.context is None:
            runner.gr_context = frame.context = Context()
        while self.epoch == epoch:
            if self.again:
                self.run_held(frame, runner)
                continue
            if self.only_again:
                return 0
            port = self.cur
            if port is None:
                port = self.next_port(epoch)
                if port is None or self.epoch != epoch:
                    return 0
            frame.port = port
            while True:
                if port.is_closed:
                    self.drop_current()
                    break
                if port.is_put_off or port.is_over or port.is_crowded:
                    self.keep_current()
                    break
                if port.extra is not None:
                    self.run_extra(frame, runner, port)
                    status = WIRE_ODD
                elif self.p >= self.end:
                    self.finish(port)
                    break
                else:
                    status = self.run_one(frame, runner, port)
                if self.epoch != epoch:
                    if frame.port is not None:
                        self.mark_dirty(port)
                    return 0
                if status == WIRE_SHORT:
                    self.keep_partial(port)
                    break
                self.before_clock -= 1
                if self.before_clock <= 0 or status == WIRE_ODD:
                    if now_ns() > self.slice_end:
                        self.keep_current()
                        return 0
                    self.before_clock = CLOCK_EVERY

    cdef int renew_context(self, Frame frame, runner) except -1:
        """Give the next call a fresh context if this one has left something in it."""
        if PyObject_Size(<PyObject *>frame.context):
            runner.gr_context = frame.context = Context()
        return 0

    cdef int run_held(self, Frame frame, runner) except -1:
        """Begin a call that was held back."""
        frame.port, message = self.again.popleft()
        if type(message) is not list and type(message) is not bytearray:
            message = next(message)
        frame.set_call(message)
        self.shown = NULL
        self.slow_path.take(runner, frame.port, message)
        message = None
        frame.drop_params()
        self.renew_context(frame, runner)
        return 0

    cdef int run_extra(self, Frame frame, runner, Port port) except -1:
        """Run a message that Python has decoded, or not read."""
        message = port.extra.popleft()
        if not port.extra:
            port.extra = None
        self.run_slowly(frame, runner, port, message)
        return 0

    cdef int run_slowly(self, Frame frame, runner, Port port, message) except -1:
        port.count += 1
        self.begun += 1
        self.shown = NULL
        frame.set_call(message)
        self.look_at_pending(port)
        self.slow_path.take(runner, port, message)
        message = None
        frame.drop_params()
        self.renew_context(frame, runner)
        return 0

    cdef int look_at_pending(self, Port port) except -1:
        if port.count - port.gathered > self.max_pending and not port.is_over and not port.is_closed:
            port.is_over = True
            port.listener.handle(_PENDING)
        return 0

    cdef int run_one(self, Frame frame, runner, Port port) except -1:
        """Run the call at p. Returns WIRE_SHORT if it is incomplete, WIRE_ODD if it took the slow path."""
        cdef wire_reader reader
        cdef wire_envelope envelope
        cdef int status
        cdef Entry *entry = NULL
        cdef PyObject *result
        cdef PyObject *function
        cdef Py_ssize_t length
        reader.at = self.p
        reader.is_whole = self.p < self.whole_until
        reader.end = self.whole_until if reader.is_whole else self.end
        status = wire_request(&reader, &envelope)
        if status == WIRE_OK:
            entry = frame.table.find(envelope.name, envelope.name_length)
            status = self.read_params(frame, &reader, envelope.count) if entry != NULL else WIRE_ODD
        if status == WIRE_OK and <uint64_t>(reader.at - self.p) > self.max_size:
            frame.drop_params()
            status = WIRE_ODD
        if status != WIRE_OK:
            return self.run_odd(frame, runner, port, status)
        length = reader.at - self.p
        if length > LIGHT_BYTES:
            self.before_clock = 0  # it may have been long
        self.p = reader.at
        self.begun += 1
        port.count += 1
        if port.count - port.gathered > self.max_pending:
            self.look_at_pending(port)
        frame.msgid = envelope.msgid
        frame.name = <object>entry.name
        if entry != self.shown:
            self.shown = entry
            self.cells[RUNNING_CELL] = entry.number
        function = entry.function
        Py_INCREF(<object>function)
        if entry.self != NULL:
            frame.slots[1] = entry.self
            own = <object>entry.self
            result = PyObject_Vectorcall(function, &frame.slots[1], (<size_t>frame.count + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        else:
            result = PyObject_Vectorcall(function, &frame.slots[2], (<size_t>frame.count) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        Py_DECREF(<object>function)
        if result == NULL:
            self.fail(runner, take_error())
            if port.held and length > LARGE_CALL_BYTES:
                self.room.crowd(port)
        else:
            self.answer(frame, runner, port, envelope.msgid, result)
            Py_DECREF(<object>result)
        frame.drop_params()
        self.renew_context(frame, runner)
        return WIRE_OK

    cdef int read_params(self, Frame frame, wire_reader *reader, uint32_t count) except -1:
        cdef uint32_t place
        cdef int status = WIRE_OK
        cdef PyObject *value
        for place in range(count):
            value = wire_decode(reader, <int>self.max_depth - 2, &status)
            if value == NULL:
                frame.count = <int>place
                frame.drop_params()
                if status == WIRE_FAILED:
                    raise take_error()
                return status
            frame.slots[2 + place] = value
        frame.count = <int>count
        return WIRE_OK

    cdef int answer(self, Frame frame, runner, Port port, uint32_t msgid, PyObject *result) except -1:
        """Send the result of a call, unless it was answered already."""
        cdef size_t before, size
        if frame.port is None:
            return 0
        if not port.is_closed:
            if port.out.bytes == NULL:
                self.lend(&port.out, False)
            before = port.out.end - port.out.start
            if wire_response(&port.out, msgid, result) == WIRE_OK:
                size = port.out.end - port.out.start - before
                if size <= self.max_size:
                    port.gathered += 1
                    if before + size > _GATHER:
                        self.room.handled_large = True
                        port.flush_out()
                    return 0
                port.out.end -= size
        try:
            reply = runner.pack((1, msgid, None, <object>result))
        except BaseException as raised:
            self.fail(runner, raised)
            return 0
        self.slow_path.put(runner, reply)
        return 0

    cdef int fail(self, runner, raised) except -1:
        reply = self.slow_path.failed(runner, raised)
        if reply:
            self.slow_path.put(runner, reply)
        return 0

    cdef int run_odd(self, Frame frame, runner, Port port, int status) except -1:
        """Run what is no plain request: find where it ends, and leave it to the slow path."""
        cdef wire_outline outline
        cdef int found
        cdef size_t length
        if status == WIRE_SHORT and self.p >= self.whole_until:
            return WIRE_SHORT
        if self.p < self.whole_until:
            length = <size_t>(self.whole_until - self.p)
            message = bytearray(self.p[:length])
            self.p = self.whole_until
            self.run_slowly(frame, runner, port, message)
            return WIRE_ODD
        outline_begin(&outline, self.scratch, self.max_size, self.max_depth)
        found = outline_advance(&outline, self.p, <size_t>(self.end - self.p))
        if found == OUTLINE_SHORT:
            return WIRE_SHORT
        if found == OUTLINE_WHOLE:
            self.whole_until = self.p + outline.at
            return self.run_one(frame, runner, port)
        data = self.p[:self.end - self.p]
        self.p = self.end
        self.decode_by_python(port, Partial(self.bounds), data)
        return WIRE_ODD

    cdef int decode_by_python(self, Port port, rest, data) except -1:
        """Leave ``data``, which continues ``rest``, to the Python decoder, which knows what to do about limits."""
        if self.decoder is None or self.decoder.bounds is not self.bounds:
            self.decoder = SharedDecoder(self.bounds)
        try:
            if len(data) > LARGE_BYTES:
                self.room.handled_large = True
            messages, new = self.decoder.decode_more(rest, data)
        except Undecodable as undecodable:
            messages, new = [*undecodable.messages, undecodable.error], None
            port.listener.handle(_UNDECODABLE)
        if messages:
            port.extra = deque(messages)
        is_new = new is not port.rest
        port.rest = new
        if is_new or new is None:
            port.note_partial(new is not None)
        return 0

    # -- whose input comes next

    cdef Port next_port(self, long epoch):
        """Begin with the input of the next connection; None if there is none, or another runner does it.

        Listeners log, and a log handler of the service may block.
        """
        cdef Port port
        if self.must_poll:
            self.poll_now()
        while self.epoch == epoch:
            port = self.pop()
            if port is None:
                return None
            if port.is_closed or port.is_put_off or port.is_over or port.is_crowded:
                continue
            if port.has_more:
                self.begin_kept(port)
                return port
            if port.extra is not None:
                self.begin(port, NULL, NULL)
                return port
            if port.readable and port.is_read and self.fill(port):
                return port
        return None

    cdef void begin(self, Port port, const uint8_t *p, const uint8_t *end) noexcept:
        self.cur = port
        self.p = p
        self.end = end
        self.whole_until = NULL
        self.is_in_kept = False

    cdef void begin_kept(self, Port port) noexcept:
        self.begin(port, port.kept.bytes + port.kept.start, port.kept.bytes + port.kept.end)
        if port.whole:
            self.whole_until = self.p + port.whole
            port.whole = 0
        self.is_in_kept = True

    cdef bint fill(self, Port port) except -1:
        """Receive once for ``port``. Returns whether there is something to run."""
        cdef ssize_t length
        cdef size_t most = RECEIVE_BYTES if self.light is None and self.more is None else RECEIVE_FEW_BYTES
        if port.rest is not None:
            self.receive_rest(port, most)
        elif port.outline != NULL:
            self.receive_partial(port, most)
        else:
            length = port.receive_at(self.buffer, most)
            if length > 0 and port.mode == DISCARD:
                self.push(port)
                return False
            if length > 0:
                self.begin(port, self.buffer, self.buffer + length)
            return length > 0
        if port.has_more and self.light is not None:
            self.push(port)  # it is long
        elif port.has_more:
            self.begin_kept(port)
        elif port.extra is not None:
            self.begin(port, NULL, NULL)
        else:
            self.push(port)
        return self.cur is not None

    cdef int receive_rest(self, Port port, size_t most) except -1:
        """Receive for a connection whose incomplete message the Python decoder has."""
        cdef ssize_t length = port.receive_at(self.buffer, most)
        if length > 0:
            self.decode_by_python(port, port.rest, self.buffer[:length])
        return 0

    cdef int receive_partial(self, Port port, size_t most) except -1:
        """Receive more of an incomplete message, straight to where it is kept, which grows as it comes."""
        cdef size_t length = port.kept.end - port.kept.start
        cdef size_t missing = port.outline.resume - length
        if length >= RECEIVE_FEW_BYTES:
            most = max(most, <size_t>LARGE_BYTES)  # it is a long one, and must be whole before message_timeout
        if missing > most:
            most = min(missing + LARGE_BYTES, <size_t>RECEIVE_BYTES)
        if port.receive_into_kept(most) > 0 and port.outline != NULL:
            self.advance(port, False)
        return 0

    cdef int refuse_kept(self, Port port) except -1:
        """Leave an incomplete message, which passes a limit or is none, to the Python decoder."""
        data = port.kept.bytes[port.kept.start:port.kept.end]
        port.drop_outline()
        self.give_back(&port.kept, True)
        self.decode_by_python(port, Partial(self.bounds), data)
        return 0

    # -- the end of an input, or of a turn

    cdef void leave_kept(self, Port port) noexcept:
        """Let go of kept input that is used up, or was dropped."""
        self.cur = None
        port.has_more = False
        if self.is_in_kept and port.kept.bytes != NULL:
            if port.kept.room > LARGE_BYTES:
                self.room.handled_large = True
            self.give_back(&port.kept, True)
        self.is_in_kept = False

    cdef int drop_current(self) except -1:
        """Forget the input of a connection that was closed."""
        cdef Port port = self.cur
        self.leave_kept(port)
        port.forget_input()
        return 0

    cdef int finish(self, Port port) except -1:
        """All of the input has been run."""
        self.leave_kept(port)
        if port.rest is None:
            port.note_partial(False)
        self.end_turn(port)
        return 0

    cdef int end_turn(self, Port port) except -1:
        if port.gathered or port.reports:
            port.flush_out()
        if port.mode == LAST and not port.is_closed:
            port.mode = READ
            port.is_read = False
            port.listener.handle(_HEARD_LAST)
        self.push(port)
        return 0

    cdef int keep_current(self) except -1:
        """Keep the rest of the input for a later turn."""
        cdef Port port = self.cur
        self.keep_rest(port)
        port.has_more = port.kept.bytes != NULL
        if not port.has_more and port.rest is None:
            port.note_partial(False)
        self.end_turn(port)
        return 0

    cdef int keep_rest(self, Port port) except -1:
        """Move what is left from p to end into the kept input."""
        cdef size_t length = <size_t>(self.end - self.p)
        cdef bint was_in_kept = self.is_in_kept
        self.cur = None
        self.is_in_kept = False
        if was_in_kept:
            port.kept.start = port.kept.end - length
            if not length:
                self.give_back(&port.kept, True)
        elif length:
            self.lend(&port.kept, True)
            if buffer_add(&port.kept, self.p, length):
                raise MemoryError
        return 0

    cdef int keep_partial(self, Port port) except -1:
        """Keep the beginning of a message, and note how far it goes."""
        self.keep_rest(port)
        port.has_more = False
        if port.drops_rest:
            port.forget_input()
            self.end_turn(port)
            return 0
        self.look_at_kept(port)
        self.end_turn(port)
        return 0

    cdef int look_at_kept(self, Port port) except -1:
        """Note how far the first message in the kept input goes."""
        port.outline = <wire_outline *>malloc(sizeof(wire_outline) + (self.max_depth + 3) * sizeof(uint64_t))
        if port.outline == NULL:
            raise MemoryError
        outline_begin(port.outline, <uint64_t *>(port.outline + 1), self.max_size, self.max_depth)
        return self.advance(port, True)

    cdef int advance(self, Port port, bint is_new) except -1:
        """Follow an incomplete message through what has come of it."""
        cdef int found = outline_advance(
            port.outline, port.kept.bytes + port.kept.start, port.kept.end - port.kept.start
        )
        if found == OUTLINE_WHOLE:
            port.whole = port.outline.at
            port.drop_outline()
            port.has_more = True
            port.note_partial(False)
        elif found == OUTLINE_REFUSED:
            self.refuse_kept(port)
        elif is_new:
            port.note_partial(True)
        return 0


cdef inline bint port_has_work(Port port) noexcept:
    """Return whether a port has calls to run, or may be read."""
    if port.has_more or port.extra is not None:
        return not (port.is_put_off or port.is_over or port.is_crowded)
    return port.readable and port.is_read
