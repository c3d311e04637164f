# All connections, and the way through them; a part of `_turn.pyx`.

@final
cdef class Turn:
    """All connections of a worker, and the runners' way through them."""

    cdef int epoll
    cdef epoll_event events[EVENTS]
    cdef uint8_t *buffer
    cdef uint8_t *own_buffer  # the same, unless that is a part of the ledger
    cdef Port cur  # whose input is worked through, from p to end
    cdef const uint8_t *p
    cdef const uint8_t *end
    cdef const uint8_t *whole_until  # the message at p is known to be whole up to here
    cdef bint is_in_kept  # p lies in the input that cur has kept
    cdef Port light, light_tail, more, more_tail  # two queues
    cdef wire_buffer spare_input, spare_output
    cdef list dirty
    cdef list writable  # made once: a new list may collect garbage, and a finalizer block, amid the events
    cdef public long epoch
    cdef public int64_t begun
    cdef int64_t slice_end
    cdef int before_clock, light_in_a_row
    cdef bint must_poll
    cdef public bint only_again  # no other calls than those that were held back
    cdef Entry *shown
    cdef uint64_t[:] cells
    cdef uint64_t[:] lease  # the page of the lead
    cdef object leading, refuse_rate, known
    cdef uint64_t *waits  # the histogram of the time that calls have waited, if they are timed
    cdef uint64_t max_size
    cdef uint32_t max_depth
    cdef public Py_ssize_t max_pending
    cdef public object room, bounds, runners
    cdef object slow_path, decoder
    cdef object bounded  # the runner whose call with a deadline runs, and has not blocked
    cdef object again  # calls that were held back, and may begin now
    cdef uint64_t *scratch
    cdef Ledger ledger  # None: connections end with this process
    cdef uint64_t zero  # added to an address in the input of cur: an offset of its stream

    def __cinit__(self):
        self.epoll = -1
        self.buffer = self.own_buffer = <uint8_t *>malloc(RECEIVE_BYTES)
        if self.buffer == NULL:
            raise MemoryError

    def __init__(self, room, cells, slow_path, Ledger ledger=None):
        """``slow_path`` runs what is no plain request; ``ledger`` has what outlives this process."""
        if ledger is not None:
            self.ledger = ledger
            free(self.own_buffer)
            self.own_buffer = NULL
            self.buffer = ledger.input_window
        self.room = room
        self.cells = cells
        self.slow_path = slow_path
        self.leading = room.leading
        self.refuse_rate = room.refuse_rate
        self.lease = room.leading.cells
        self.waits = cells_in(room.tally.queue)
        self.dirty = []
        self.writable = []
        self.again = deque()
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, "cannot make an epoll set")

    def __dealloc__(self):
        if self.epoll >= 0:
            close(self.epoll)
        free(self.own_buffer)
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

    def set_methods(self, View view, methods, table, table_when_full, numbers, buckets, known):
        """Let ``view`` have methods from ``table`` from now on; from ``table_when_full`` while all greenlets are taken.

        ``buckets`` are those that a call of a method takes from first; a method that has to wait takes from none.
        ``known`` are the cells in which calls of methods are counted; empty if they are not.
        """
        self.known = known
        view.table = Table(methods, table, numbers, buckets, known)
        view.table_when_full = Table(methods, table_when_full or table, numbers, buckets, known)
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

    @property
    def arrived_at(self):
        """When the call that begins now has come, in monotonic seconds."""
        return self.arrived_ns() / 1e9

    cdef int64_t arrived_ns(self) noexcept:
        return self.cur.kept_at if self.cur is not None and self.is_in_kept else self.slice_end - SLICE_NS

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
        """Run calls that were held back, each with its outbox and when it came, before all others.

        A call may come as an iterator.
        """
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
                self.writable.append(port)  # kept alive by it; its listener may do anything
        if count == EVENTS:
            self.must_poll = True
        while self.writable:
            port = self.writable.pop()
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
        if self.bounded is not None:  # its call has blocked, and needs a timer
            runner, self.bounded = self.bounded, None
            limit_of(runner, <Frame>runner.frame)
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
            if port.kept.bytes != NULL and _CANCEL in port.kept.bytes[port.kept.start:port.kept.end]:
                if self.room.cancelling.look_at(port, port.waiting()):
                    continue
            if port.is_read and port.mode != DISCARD:
                if port.has_more or port.extra is not None:
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
            frame.is_when_full = runner is runners.usher
            try:
                self.take(frame, runner, epoch)
            except BaseException:  # no known fault; but without its runners a worker would serve nobody
                logger.critical("The engine failed in a call, whose connection is closed", exc_info=True)
                if frame.port is not None:
                    frame.port.refuse(ProtocolError("found a fault of the engine in one of its calls"))
            if self.epoch != epoch:
                frame.context = None
            frame.port = frame.limit = None
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
            frame.table = port.view.table_when_full if frame.is_when_full else port.view.table
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
        frame.port, message, arrived_at = self.again.popleft()
        if type(message) is not list and type(message) is not bytearray:
            message = next(message)
        frame.set_call(message)
        self.shown = NULL
        self.slow_path.take(runner, frame.port, message, arrived_at)
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
        cdef uint32_t kind, msgid = 0
        port.count += 1
        self.begun += 1
        self.shown = NULL
        if port.note is not None:
            kind = kind_of(message, &msgid)
            port.note.note_begun(<uint64_t>self.p + self.zero, msgid, kind)
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
        cdef Py_ssize_t length
        cdef bint has_failed
        reader.at = self.p
        reader.is_whole = self.p < self.whole_until
        reader.end = self.whole_until if reader.is_whole else self.end
        status = wire_request(&reader, &envelope)
        if status == WIRE_OK:
            entry = frame.table.find(envelope.name, envelope.name_length)
            if entry == NULL:
                status = WIRE_ODD
            elif entry.is_bounding:
                status = self.read_bounding(frame, &reader, &envelope, &entry)
            else:
                status = self.read_params(frame, &reader, envelope.count, <int>self.max_depth - 2)
        if status == WIRE_OK and <uint64_t>(reader.at - self.p) > self.max_size:
            frame.drop_params()
            status = WIRE_ODD
        if status != WIRE_OK:
            return self.run_odd(frame, runner, port, status)
        length = reader.at - self.p
        if length > LIGHT_BYTES:
            self.before_clock = 0  # it may have been long
            port.expected = <uint32_t>min(length, RECEIVE_BYTES)
        self.p = reader.at
        if port.note is not None:
            frame.begun = port.note.note_begun(<uint64_t>self.p + self.zero, envelope.msgid, REQUEST_KIND)
        self.begun += 1
        port.count += 1
        if port.count - port.gathered > self.max_pending:
            self.look_at_pending(port)
        frame.msgid = envelope.msgid
        frame.name = <object>entry.name
        if entry != self.shown:
            self.shown = entry
            self.cells[RUNNING_CELL] = entry.number
        if entry.counts != NULL:
            self.begin_to_time(frame, entry.counts)
        if entry.is_guarded or frame.is_bounded:
            has_failed = self.run_guarded(frame, runner, port, entry)
        else:
            result = call_method(frame, entry)
            has_failed = result == NULL
            if has_failed:
                self.fail(runner, take_error())
            else:
                self.answer(frame, runner, port, frame.msgid, result)
                Py_DECREF(<object>result)
        if has_failed and port.held and length > LARGE_CALL_BYTES:
            self.room.crowd(port)
        frame.drop_params()
        self.renew_context(frame, runner)
        return WIRE_OK

    cdef int read_bounding(self, Frame frame, wire_reader *reader, wire_envelope *envelope, Entry **entry) except -1:
        """Read an `rpc.call`: the call and the deadline inside of it, or else the params for `BoundedCalls`."""
        cdef int status = WIRE_ODD
        if envelope.count == 3:
            status = self.read_bounded(frame, reader, entry)
        if status == WIRE_ODD:
            status = self.read_params(frame, reader, envelope.count, <int>self.max_depth - 2)
        return status

    cdef int read_bounded(self, Frame frame, wire_reader *reader, Entry **entry) except -1:
        """Read the call and the deadline that are inside; WIRE_ODD if that is not done here."""
        cdef wire_reader inside = reader[0]
        cdef wire_envelope envelope
        cdef Entry *found
        cdef double seconds = 0.0
        cdef int status = wire_target(&inside, &envelope)
        if status != WIRE_OK:
            return status
        found = frame.table.find(envelope.name, envelope.name_length)
        if found == NULL or found.is_own or self.max_depth < 3:
            return WIRE_ODD
        status = self.read_params(frame, &inside, envelope.count, <int>self.max_depth - 3)
        if status != WIRE_OK:
            return status
        status = wire_timeout(&inside, &seconds)
        if status != WIRE_OK:
            frame.drop_params()
            return status
        frame.is_bounded = True
        frame.ends_ns = self.arrived_ns() + <int64_t>(seconds * 1e9)
        reader[0] = inside
        entry[0] = found
        return WIRE_OK

    cdef int run_guarded(self, Frame frame, runner, Port port, Entry *entry) except -1:
        """Run a call that may be refused: it has a rate or a deadline, or is led. Returns whether it has no result."""
        cdef PyObject *result
        cdef uint64_t token = 0
        cdef bint is_led = entry.is_led  # the entry may be gone after the call
        cdef tuple buckets = None
        refusal = self.refusal(frame, entry)
        if refusal is not None:
            frame.is_bounded = False
            self.fail(runner, refusal)
            return False
        if is_led:
            token = self.lease[TOKEN]
        if entry.buckets != NULL:
            buckets = <tuple>entry.buckets
        if frame.is_bounded:
            self.bounded = runner
        result = call_method(frame, entry)
        raised = take_error() if result == NULL else None
        if buckets is not None and type(raised) is HeldBack:  # it begins later, and takes then
            give_back_all(buckets, len(buckets))
        if frame.is_bounded:
            raised = self.end_bounded(frame, runner, raised)
        if is_led:
            if type(raised) is Parked:
                raised.token = token
            elif type(raised) is not HeldBack and frame.port is not None:
                port.note_led(frame.msgid, token)
        if raised is None:
            self.answer(frame, runner, port, frame.msgid, result)
        else:
            self.fail(runner, raised)
        if result != NULL:
            Py_DECREF(<object>result)
        return raised is not None

    cdef object refusal(self, Frame frame, Entry *entry):
        """Return the error of a call that may not begin; None if it may, and then it has taken from its buckets."""
        if frame.is_bounded and now_ns() >= frame.ends_ns:
            return Expired()
        if entry.buckets != NULL and not take_all(<tuple>entry.buckets):
            return self.refuse_rate(frame.name)
        if entry.is_led and self.lease[BEGINS_NS] <= boot_ns():
            return self.leading.refusal()
        return None

    cdef object end_bounded(self, Frame frame, runner, raised):
        """End the deadline of a call. Returns what the call ends with: None for its result."""
        if self.bounded is runner:
            self.bounded = None
        if type(raised) is Parked and raised.limit is None:
            raised.limit = limit_of(runner, frame)
            frame.limit = None
        if frame.limit is not None:
            frame.limit.end()
            frame.limit = None
        frame.is_bounded = False
        if type(raised) is HeldBack:
            frame.bound_again()
        elif raised is None and now_ns() >= frame.ends_ns:
            return Expired()
        return raised

    cdef bint is_in_force(self, uint64_t token) noexcept:
        """Return whether this cluster leads at this instant, with ``token``."""
        return boot_ns() < self.lease[ENDS_NS] and self.lease[TOKEN] == token

    cdef int read_params(self, Frame frame, wire_reader *reader, uint32_t count, int depth_left) except -1:
        cdef uint32_t place
        cdef int status = WIRE_OK
        cdef PyObject *value
        for place in range(count):
            value = wire_decode_quietly(reader, depth_left, &status)
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
        if frame.is_interrupted:
            interruption = runner.take_interruption()
            if interruption is not None:
                return self.fail(runner, interruption)
        if not port.is_closed:
            if port.note is not None and PyBytes_CheckExact(result) and self.answer_large(frame, port, msgid, result):
                return 0
            if port.out.bytes == NULL:
                self.lend(&port.out, False)
            before = port.out.end - port.out.start
            if wire_response(&port.out, msgid, result) == WIRE_OK:
                size = port.out.end - port.out.start - before
                if size <= self.max_size:
                    port.gathered += 1
                    if frame.counts != NULL:
                        self.count(frame)
                    if port.note is not None:
                        port.note.answer_begun(frame.begun, msgid)
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
        if frame.counts != NULL:
            frame.counts = NULL
            self.slow_path.put_result(runner, reply)
        else:
            self.slow_path.put(runner, reply)
        return 0

    cdef bint answer_large(self, Frame frame, Port port, uint32_t msgid, PyObject *result) except -1:
        """Pack long bytes where they are sent from, in a block of the ledger; returns whether that was possible."""
        cdef size_t size = <size_t>PyBytes_GET_SIZE(result) + MOST_AROUND_BYTES
        cdef uint8_t *block
        if size <= _OUTPUT_WINDOW or size > self.max_size or port.rarity.led is not None or port.unsent_length():
            return False
        block = self.ledger.new_block(size)
        if block == NULL:
            return False
        port.gathered += 1
        if frame.counts != NULL:
            self.count(frame)
        port.note.answer_begun(frame.begun, msgid)
        port.note.publish_response(block, msgid, result)
        self.room.handled_large = True
        port.flush_out()
        return True

    cdef void begin_to_time(self, Frame frame, uint64_t *counts):
        frame.counts = counts
        frame.known = self.known
        frame.began = now_ns()
        frame.waited = frame.began - self.arrived_ns()

    cdef void count(self, Frame frame) noexcept:
        """Count the call of ``frame``, whose result is put where it leaves."""
        observe(frame.counts, now_ns() - frame.began)
        observe(self.waits, frame.waited)
        frame.counts = NULL
        frame.began = 0

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
            if length > LIGHT_BYTES:
                port.expected = <uint32_t>min(length, <size_t>RECEIVE_BYTES)
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
        port.be_bare()
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
        if port.note is not None:
            self.zero = port.note.received - <uint64_t>end
            self.ledger.current[0] = port.note.number
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
        cdef size_t most = RECEIVE_BYTES
        if self.light is not None or self.more is not None:
            most = min(RECEIVE_FEW_BYTES + <size_t>port.expected, most)
        port.expected = 0  # what is long is asked for once, so that many short messages never come as one long one
        if port.rest is not None:
            self.receive_rest(port, most)
        elif port.outline != NULL:
            self.receive_partial(port, most)
        else:
            if port.note is not None:
                port.note.put_input(self.buffer)
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
            most = min(missing + LARGE_BYTES, <size_t>RECEIVE_MORE_BYTES)
        if port.receive_into_kept(most) > 0 and port.outline != NULL:
            self.advance(port, False)
        return 0

    cdef int refuse_kept(self, Port port) except -1:
        """Leave an incomplete message, which passes a limit or is none, to the Python decoder."""
        data = port.kept.bytes[port.kept.start:port.kept.end]
        port.drop_outline()
        port.be_bare()
        port.drop_kept()
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
            port.drop_kept()
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
        if port.note is not None:
            self.ledger.current[0] = 0
            port.look_at_bare()
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
                port.drop_kept()
        elif length:
            port.kept_at = self.slice_end - SLICE_NS
            port.append_kept(self.p, length)
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
            port.kept_at = now_ns()
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
