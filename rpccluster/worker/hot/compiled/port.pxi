# One connection; a part of `_turn.pyx`.

cdef uint32_t peek_msgid(const uint8_t *message, size_t length, uint32_t *msgid) noexcept:
    """Return what a packed request, reply or notification is, as a `BegunKind`, and its msgid."""
    cdef size_t size, place
    if length >= 2 and message[0] == 0x93 and message[1] == 2:
        return NOTIFICATION_KIND
    if length < 3 or message[0] != 0x94 or message[1] > 1:
        return UNKNOWN_KIND
    if message[2] < 0x80:
        msgid[0] = message[2]
        return REQUEST_KIND
    if message[2] < 0xCC or message[2] > 0xCE:
        return UNKNOWN_KIND
    size = <size_t>1 << (message[2] - 0xCC)
    if length < 3 + size:
        return UNKNOWN_KIND
    msgid[0] = 0
    for place in range(size):
        msgid[0] = msgid[0] << 8 | message[3 + place]
    return REQUEST_KIND


cdef uint32_t kind_of(message, uint32_t *msgid) except? 99:
    """Return what a message of the slow path is, decoded or not, as a `BegunKind`, and its msgid."""
    cdef const uint8_t[::1] view
    if type(message) is bytearray:
        view = message
        return peek_msgid(&view[0], len(message), msgid) if len(message) else UNKNOWN_KIND
    if type(message) is list and len(message) == 4 and type(message[1]) is int and 0 <= message[1] < 1 << 32:
        msgid[0] = message[1]
        return REQUEST_KIND
    return NOTIFICATION_KIND if type(message) is list and len(message) == 3 else UNKNOWN_KIND


@final
cdef class Rarity:
    """What few connections have; the others share one that nobody writes to."""

    cdef object closing_msgid, forward, afar
    cdef object moved_as  # the number of its connection, once that has moved
    cdef uint8_t *left  # the block that it had when its connection moved
    cdef list led  # calls that only a leader may answer, and which have ended in this turn
    cdef uint64_t led_token  # of the lead under which they have begun
    cdef object led_lost  # msgids of further ones, whose lead is over
    cdef size_t led_from  # where in `out` their replies begin

    def __cinit__(self):
        self.moved_as = 0


cdef Rarity NOTHING = Rarity()


@final
cdef class Port:
    """The input and the output of one socket: `Inbox` and `Outbox` of the Python engine in one.

    There may be very many, most of them idle: flags are bytes, and what few have stands in a `Rarity`.
    """

    cdef Turn turn
    cdef object listener, rest, extra
    cdef public object peer
    cdef readonly object identity, tables  # the tables are those that the slow path finds methods in
    cdef View view
    cdef Rarity rarity
    cdef int fd
    cdef uint8_t is_read, readable, hung_up, is_queued, is_dirty, has_more, is_partial, is_put_off, is_over, is_crowded
    cdef uint8_t drops_rest, is_unsent, is_high
    cdef uint8_t is_in_ledger  # `kept` is a block of the ledger
    cdef uint8_t is_bare  # input that has led to no call yet does not stand in the ledger
    cdef uint8_t mode
    cdef public uint8_t is_closed, reports, was_heard, has_left
    cdef public int32_t held  # calls that are held back
    cdef int32_t count, gathered  # calls that are not answered; replies in `out` that are not counted off yet
    cdef wire_buffer kept, out
    cdef wire_outline *outline  # of the incomplete message in `kept`
    cdef int64_t kept_at  # when `kept` has come, in monotonic nanoseconds
    cdef size_t whole  # length of the first message in `kept`, where it is known to be whole
    cdef uint32_t expected  # length of the last long message, until the next recv: another one may come
    cdef Port next
    cdef Note note  # None: its connection would be lost with this process

    def __cinit__(self, Turn turn, int fd, peer, listener, identity):
        cdef epoll_event event
        self.turn = turn
        self.fd = fd
        self.peer = peer
        self.listener = listener
        self.identity = identity
        self.is_read = True
        self.rarity = NOTHING
        event.events = <uint32_t>(EPOLLIN | EPOLLRDHUP) | EPOLLET
        event.data.ptr = <void *>self
        if epoll_ctl(turn.epoll, EPOLL_CTL_ADD, fd, &event):
            raise OSError(errno, "cannot watch a connection")
        Py_INCREF(self)  # for the set, until `close`
        self.readable = True  # what came before it was watched

    def __dealloc__(self):
        if not self.is_in_ledger:
            buffer_free(&self.kept)
        buffer_free(&self.out)
        if self.outline != NULL:
            free(self.outline)

    def allow(self, allowed):
        """Let the peer call what is ``allowed`` from now on."""
        self.tables = allowed.tables
        self.view = allowed.view

    # -- what few have

    cdef Rarity own_rarity(self):
        """Return what may be written to; made first: a finalizer of the service may wait meanwhile."""
        if self.rarity is NOTHING:
            made = Rarity()
            if self.rarity is NOTHING:
                self.rarity = made
        return self.rarity

    @property
    def closing_msgid(self):
        """The msgid of the peer's request to hear when nothing more is read."""
        return self.rarity.closing_msgid

    @closing_msgid.setter
    def closing_msgid(self, msgid):
        self.own_rarity().closing_msgid = msgid

    @property
    def moved_as(self):
        """The number of its connection, once that has moved."""
        return self.rarity.moved_as

    @moved_as.setter
    def moved_as(self, number):
        self.own_rarity().moved_as = number

    @property
    def led(self):
        """Calls that only a leader may answer, and which have ended in this turn."""
        return self.rarity.led

    @led.setter
    def led(self, list calls):
        self.own_rarity().led = calls

    @property
    def led_token(self):
        """The token of the lead under which they have begun."""
        return self.rarity.led_token

    @led_token.setter
    def led_token(self, uint64_t token):
        self.own_rarity().led_token = token

    @property
    def led_lost(self):
        """Msgids of further ones, whose lead is over."""
        return self.rarity.led_lost

    @led_lost.setter
    def led_lost(self, msgids):
        self.own_rarity().led_lost = msgids

    # -- what the ledger knows

    def take_note(self, uint64_t number, uint64_t read, uint64_t written):
        """Let the ledger have the connection ``number`` once `begin_note` is called.

        So many bytes were read and ``written`` before. Returns False if the ledger has no room.
        """
        try:
            self.note = Note(self.turn.ledger, number, read, written)
        except MemoryError:
            return False
        return True

    def take_unix_note(self, uint64_t number):
        """Let the ledger have the Unix socket ``number``, as `take_note` does, and count its streams from now on."""
        try:
            self.note = Note(self.turn.ledger, number, 0, 0, self.fd)
        except MemoryError:
            return False
        return True

    @property
    def is_noted(self):
        """Whether the ledger has the connection."""
        return self.note is not None

    def begin_note(self):
        """Let all that happens from now on stand in the ledger."""
        if self.note is not None:
            if self.out.end > self.out.start:
                self.publish(False)
            self.note.begin()

    def end_note(self):
        """Let the ledger forget a connection that has moved: another process has it for sure."""
        if self.rarity.left != NULL:
            self.turn.ledger.drop_block(self.rarity.left)
            self.rarity.left = NULL
        if self.note is not None:
            self.note.end()
            self.note = None

    cdef void be_bare(self) noexcept:
        """Note that the ledger does not have the input."""
        if self.note is not None and not self.is_bare:
            self.is_bare = True
            store(&self.note.record.flags, self.note.record.flags | BARE_INPUT)

    cdef void look_at_bare(self) noexcept:
        """Let the ledger have the input from here on, if there is none left that it does not have."""
        if self.is_bare and self.note is not None and not self.is_closed and self.kept.bytes == NULL and self.rest is None and self.extra is None:
            self.is_bare = False
            self.skip_input()
            store(&self.note.record.flags, self.note.record.flags & ~BARE_INPUT)

    cdef void skip_input(self) noexcept:
        """Note that what has come by now leads to no call any more."""
        if self.note is not None and not self.is_closed:
            store(&self.note.record.border, self.note.received)

    cdef void note_reply(self, bytes reply) noexcept:
        """Note that a call is answered by the gathered ``reply``."""
        cdef uint32_t msgid = 0
        cdef int32_t place
        if peek_msgid(reply, len(reply), &msgid) == REQUEST_KIND:
            place = self.note.find(msgid, REQUEST_KIND)
            self.note.note_answered(place if place != NO_BLOCK else self.note.find(0, UNKNOWN_KIND))

    # -- input that is kept

    cdef int reserve_kept(self, size_t more) except -1:
        """Make room behind the kept input, in the ledger if it has room."""
        cdef size_t length = self.kept.end - self.kept.start
        cdef uint8_t *block
        cdef uint8_t *bytes
        if self.note is None or (self.kept.bytes != NULL and not self.is_in_ledger):
            if buffer_reserve(&self.kept, more):
                raise MemoryError
            return 0
        if self.kept.bytes != NULL and self.kept.end + more <= self.kept.room:
            return 0
        block = self.turn.ledger.new_block(length + more)
        if block == NULL:
            self.turn.ledger.uncovered += 1
            self.be_bare()
            bytes = <uint8_t *>malloc(length + more)
            if bytes == NULL:
                raise MemoryError
        else:
            bytes = block
        if length:
            memcpy(bytes, self.kept.bytes + self.kept.start, length)
            if block != NULL:
                self.note.put_input(bytes + length)
        if self.is_in_ledger:
            self.turn.ledger.drop_block(self.kept.bytes)
        self.kept.bytes = bytes
        self.kept.start = 0
        self.kept.end = length
        self.kept.room = self.turn.ledger.block_size(block) if block != NULL else length + more
        self.is_in_ledger = block != NULL
        return 0

    cdef int append_kept(self, const uint8_t *data, size_t length) except -1:
        """Keep ``data`` behind the kept input; it may stand in the ledger already."""
        if self.note is None and self.kept.bytes == NULL:
            self.turn.lend(&self.kept, True)
        self.reserve_kept(length)
        memcpy(self.kept.bytes + self.kept.end, data, length)
        self.kept.end += length
        if self.is_in_ledger:
            self.note.put_input(self.kept.bytes + self.kept.end)
        return 0

    cdef void drop_kept(self) noexcept:
        """Let go of the memory of the kept input."""
        if not self.is_in_ledger:
            self.turn.give_back(&self.kept, True)
            return
        self.turn.ledger.drop_block(self.kept.bytes)
        memset(&self.kept, 0, sizeof(wire_buffer))
        self.is_in_ledger = False

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
            self.kept_at = now_ns()
            self.turn.look_at_kept(self)
        self.turn.queue(self)

    cdef void forget_input(self) noexcept:
        self.skip_input()
        if self.kept.bytes != NULL:
            self.turn.room.handled_large = True
            self.drop_kept()
        self.drop_outline()
        self.extra = self.rest = None
        self.has_more = False
        self.look_at_bare()

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
        if self.note is not None:
            self.leave_note()
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

    cdef void leave_note(self) noexcept:
        """Let the ledger forget the connection; if it moves, `end_note` does that, and it stays as it is until then."""
        if not self.rarity.moved_as:
            self.note.end()
            self.note = None
        elif self.is_in_ledger and not (self is self.turn.cur and self.turn.is_in_kept):
            self.rarity.left = self.kept.bytes  # its own: it has moved
            self.is_in_ledger = False
            memset(&self.kept, 0, sizeof(wire_buffer))

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
            self.skip_input()
        else:
            self.forget_input()

    def forget_partial(self):
        """Drop the incomplete call, of which nothing more will come."""
        self.drops_rest = True
        if self.rest is not None or (self.is_partial and not self.has_more and self is not self.turn.cur):
            self.rest = None
            self.drop_outline()
            self.skip_input()
            if self.kept.bytes != NULL:
                self.drop_kept()
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
            if self.note is not None:
                self.be_bare()
                self.forget_calls(calls)
            self.extra = deque([*calls, *(self.extra or ())])
        self.turn.queue(self)

    cdef int forget_calls(self, calls) except -1:
        """Note that ``calls`` have not begun after all."""
        cdef uint32_t msgid, kind
        for call in calls:
            msgid = 0
            kind = kind_of(call, &msgid)
            self.note.forget_call(self.note.find(msgid, kind))
        return 0

    # -- moving

    def content(self, waiting):
        """Return all input that has led to no reply yet, as bytes; change nothing. ``waiting`` are the withdrawn calls.

        Raises as `packed_again` does.
        """
        calls = packed_again([*waiting, *(self.extra or ())])
        if self.rarity.closing_msgid is not None:
            calls.insert(0, closing_request(self.rarity.closing_msgid))  # as if it had not come yet
        rest = self.rest.data if self.rest is not None else b""
        kept = b""
        if self.kept.bytes != NULL:
            kept = self.kept.bytes[self.kept.start:self.kept.end]
            if resumed(kept, self.turn.bounds)[0] is not None:
                kept = NO_MESSAGE  # it looks like the state of a `Skip`, and is none
        return b"".join([rest, *calls, kept] if isinstance(self.rest, Skip) else [*calls, kept, rest])

    @property
    def waited(self):
        """How long the calls of `content` have waited, in seconds."""
        if not self.has_more or self.extra is not None:
            return 0.0
        return (now_ns() - self.kept_at) / 1e9

    def restore(self, data, double waited=0.0):
        """Take in the `content` of a connection of another process, which has ``waited`` so many seconds."""
        self.was_heard = True  # where it comes from
        skip, data = resumed(data, self.turn.bounds)
        if data:
            self.add_kept(data)
            self.kept_at -= <int64_t>(waited * 1e9)
        if skip is not None:
            self.be_bare()
            self.rest = skip
            self.note_partial(True)
        self.turn.queue(self)

    cdef int add_kept(self, bytes data) except -1:
        self.append_kept(<const uint8_t *><char *>data, len(data))
        if self.note is not None:
            store(&self.note.record.border, self.note.received - (self.kept.end - self.kept.start))
        self.has_more = True
        self.kept_at = now_ns()
        return 0

    def unsent_content(self):
        """Return all unsent output."""
        cdef const uint8_t *bytes
        cdef size_t length = self.note.unsent_in_block() if self.note is not None else 0
        known = b""
        if length:
            bytes = self.note.first_unsent()
            known = bytes[:length]
        return known + self.out.bytes[self.out.start:self.out.end] if self.out.bytes != NULL else known

    def forward_to(self, forward):
        """Pass the replies of running calls to ``forward`` once this is closed, since the connection moves."""
        self.own_rarity().forward = forward

    def send_first(self, output):
        """Send the unsent output that another process has left."""
        cdef bytes data = bytes(output)
        if buffer_add(&self.out, <char *>data, len(data)):
            raise MemoryError
        self.begin_note()
        self.send_out()

    # -- what has become of a call

    @property
    def pending(self):
        """Number of calls that are not answered yet; as many more as wait are counted as one."""
        return self.count + (1 if self.has_more or self.extra is not None else 0)

    def expect(self, msgids):
        """Count calls that other processes answer."""
        self.count = len(msgids)
        if self.note is not None:
            for msgid in msgids:
                self.note.note_begun(0, msgid, REQUEST_KIND)
            self.note.record.border = self.note.received

    @property
    def has_room_again(self):
        """Whether enough of ``max_pending_calls`` calls are answered to receive more."""
        return self.count <= self.turn.max_pending // 2

    @property
    def is_gone(self):
        """Whether the connection is closed and has not moved, so that replies are dropped."""
        return bool(self.is_closed) and self.rarity.forward is None

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
        return bool(self.is_high)

    def put(self, reply):
        """Send ``reply`` with the others of this turn."""
        cdef bytes data = reply
        self.gathered += 1
        if self.is_closed:
            fresh = []  # made first: a finalizer of the service may wait meanwhile
            rarity = self.own_rarity()
            if rarity.afar is None:
                rarity.afar = fresh
            rarity.afar.append(data)
        else:
            if buffer_add(&self.out, <char *>data, len(data)):
                raise MemoryError
            if self.note is not None:
                self.note_reply(data)
        self.turn.mark_dirty(self)
        if self.out.end - self.out.start > _GATHER and not self.is_closed:
            self.turn.room.handled_large = True
            self.flush()

    def say(self, reply):
        """Send ``reply`` now, which answers no call."""
        self.count += 1
        if self.note is not None:
            store(&self.note.record.flags, self.note.record.flags & ~CLOSING_FLAG)
        self.put(reply)
        self.flush()

    cpdef note_led(self, call, uint64_t token):
        """Note that ``call``, or the request of this msgid, has ended, and must be answered under the lead of ``token``."""
        cdef list fresh = [call]  # made first: a finalizer of the service may wait meanwhile
        cdef Rarity rarity = self.own_rarity()
        if rarity.led is None:
            rarity.led = fresh
            rarity.led_token = token
            rarity.led_from = self.out.end - self.out.start
        elif token == rarity.led_token:
            rarity.led.append(call)
        else:
            note_under_another(self, self.turn.leading, call, token)

    cdef int look_at_led(self) except -1:
        """Replace the replies of this turn that may not leave any more."""
        cdef bytes replies
        cdef Rarity rarity = self.rarity
        if rarity.led_lost is None and self.turn.is_in_force(rarity.led_token):
            rarity.led = None
            return 0
        lost = lost_msgids(self, self.turn.leading)
        if not lost:
            return 0
        if rarity.afar is not None:
            rarity.afar = [without_lost(reply, lost) for reply in rarity.afar]
        if self.out.bytes != NULL and self.out.end - self.out.start > rarity.led_from:
            replies = without_lost(self.out.bytes[self.out.start + rarity.led_from:self.out.end], lost)
            self.out.end = self.out.start + rarity.led_from
            if buffer_add(&self.out, <char *>replies, len(replies)):
                raise MemoryError
        return 0

    def end_notification(self):
        """Count a notification that has run; it gets no reply."""
        cdef int32_t place
        if self.note is not None:
            place = self.note.find(0, NOTIFICATION_KIND)
            self.note.forget_call(place if place != NO_BLOCK else self.note.find(0, UNKNOWN_KIND))
        self.count -= 1
        self.look_at_limit()
        if self.reports and not self.gathered and not self.is_closed:
            self.listener.handle(_ANSWERED)

    def await_closing(self, msgid):
        """Note that the peer asks for ``rpc.closing``. Returns False if it has asked before."""
        if self.rarity.closing_msgid is not None:
            return False
        self.own_rarity().closing_msgid = msgid
        if self.note is not None:
            self.note.record.closing_msgid = msgid
            store(&self.note.record.flags, self.note.record.flags | CLOSING_FLAG)
            self.note.forget_call(self.note.find(msgid, REQUEST_KIND))
        self.turn.begun -= 1  # it is no call
        self.end_notification()
        return True

    def tell(self, happened):
        """Tell the listener that calls are held back, or are not any more."""
        self.is_crowded = happened is _HELD_BACK
        self.listener.handle(happened)
        if not self.is_crowded:
            self.turn.queue(self)

    def tell_cancel(self, msgid):
        """Tell the listener that the peer cancels its calls with ``msgid``."""
        self.listener.cancel(msgid)

    def leave(self):
        """Have calls of methods with ``cancel_on_disconnect`` end, since the peer has gone; false if there are none."""
        self.has_left = True
        is_wanted = self.turn.room.cancelling.is_wanted
        if is_wanted and self.count:
            self.turn.room.cancelling.leave(self)
        return is_wanted

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
        if self.rarity.led is not None:
            self.look_at_led()
        self.gathered = 0
        self.count -= count
        if self.is_closed:
            afar = self.rarity.afar
            if afar is not None:
                self.rarity.afar = None
                if self.rarity.forward is not None:
                    self.rarity.forward(afar)
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
            if not self.is_unsent and self.unsent_length():
                if self.send_out() < 0:
                    self.turn.room.dropped_replies += count
                    self.listener.handle(_BROKEN)
            elif self.is_unsent:
                if self.note is not None:
                    self.publish(False)
                self.look_at_water()
        if self.reports and not self.is_closed:
            self.listener.handle(_ANSWERED)
        return 0

    cdef int publish(self, bint goes_now) except -1:
        """Let the ledger have the output that has gathered."""
        self.note.publish(&self.out, goes_now)
        if self.out.start == self.out.end:
            self.turn.give_back(&self.out, False)
        return 0

    cdef inline size_t unsent_length(self) noexcept:
        cdef size_t length = self.out.end - self.out.start
        return length if self.note is None else length + self.note.unsent_in_block()

    cdef int send_out(self) except -2:
        """Send what there is; keep what the kernel has no room for. Returns -1 if the socket is broken."""
        cdef ssize_t sent
        cdef size_t length
        cdef const uint8_t *bytes
        cdef bint was_unsent = self.is_unsent
        if self.note is not None:
            self.publish(True)
        length = self.unsent_length()
        if self.note is not None and self.note.output != NULL:
            bytes = self.note.first_unsent()
        else:
            bytes = self.out.bytes + self.out.start
        while True:
            if self.note is not None and self.note.unix_count != NULL:
                sent = self.note.send_counted(self.fd, bytes, length)
            else:
                sent = send(self.fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent >= 0 or errno != EINTR:
                break
        if sent < 0:
            if errno != EAGAIN:
                self.turn.give_back(&self.out, False)
                return -1
            sent = 0
        if self.note is not None:
            self.note.note_sent(&self.out, <size_t>sent)
        else:
            self.out.start += <size_t>sent
        self.is_unsent = <size_t>sent != length
        if self.out.start == self.out.end:
            self.turn.give_back(&self.out, False)
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
        if not self.is_high and self.unsent_length() > _HIGH:
            self.is_high = True
            self.listener.handle(_HIGH_WATER)
        return 0

    cdef int on_writable(self) except -1:
        """Go on with the unsent output."""
        if not self.is_unsent or self.is_closed:
            return 0
        if self.rarity.led is not None:
            self.look_at_led()
        if self.send_out() < 0:
            self.is_unsent = False
            self.listener.handle(_BROKEN)
            return 0
        if not self.is_unsent:
            self.turn.room.handled_large = True
            self.listener.handle(_SENT)
        if self.is_high and self.unsent_length() < _LOW:
            self.is_high = False
            self.listener.handle(_LOW_WATER)
        if self.reports and not self.is_closed:
            self.listener.handle(_ANSWERED)
        return 0

    # -- receiving

    cdef ssize_t receive_into_kept(self, size_t most) except -2:
        """Receive behind the kept input. Returns the number of bytes, 0 at the peer's end, -1 for nothing."""
        cdef ssize_t length
        self.reserve_kept(most)
        if self.is_in_ledger and self.kept.end == self.kept.start:
            self.note.put_input(self.kept.bytes + self.kept.end)
        length = self.receive_at(self.kept.bytes + self.kept.end, most)
        if length > 0:
            self.kept.end += <size_t>length
        elif self.kept.end == self.kept.start:
            self.drop_kept()
            self.look_at_bare()
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
            if self.note is not None:
                self.note.received += <uint64_t>length
                if self.note.received >= self.note.low_at:
                    self.note.set_peek_offset(self.fd)
            return length
        self.readable = False
        if length == 0:
            self.listener.handle(_PEER_ENDED)
            return 0
        if errno != EAGAIN:
            self.listener.handle(_BROKEN)
        return -1
