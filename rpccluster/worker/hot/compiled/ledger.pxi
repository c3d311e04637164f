# What the master needs to revive the connections, if this process is killed; a part of `_turn.pyx`.
#
# `rpccluster.ledger.layout` says what stands where. The process may be killed between any two instructions, so each
# step ends in one store that makes it true, and what is replaced stays until then.

cdef struct Record:
    uint64_t number
    uint64_t check
    uint64_t border
    uint64_t input_zero
    uint64_t output_end
    uint64_t output_zero
    uint64_t flags
    uint64_t closing_msgid

cdef struct Begun:
    uint64_t number
    uint64_t input_end
    uint64_t reply_end
    uint32_t msgid
    uint32_t kind

cdef struct UnixCount:
    uint64_t sum
    uint64_t low_sum
    uint64_t written
    uint64_t unused

cdef enum:
    SMALLEST_ORDER = 9  # of blocks: 512 bytes
    ORDERS = 40
    NO_BLOCK = -1
    FREE = 64  # in the order of a block that is free
    MOST_AROUND_BYTES = 16  # of a response, around the bytes that are its result
    GIVEN_BACK_ORDER = 16  # of the smallest free blocks whose memory is given back: 64 KiB

cdef uint64_t _SHIFT = INPUT_SHIFT, _CHECK = CHECK
cdef uint64_t BARE_INPUT = Flag.BARE_INPUT, BARE_OUTPUT = Flag.BARE_OUTPUT, CLOSING_FLAG = Flag.CLOSING
cdef uint32_t REQUEST_KIND = BegunKind.REQUEST, NOTIFICATION_KIND = BegunKind.NOTIFICATION, UNKNOWN_KIND = BegunKind.UNKNOWN
cdef size_t _OUTPUT_WINDOW = OUTPUT_WINDOW
cdef uint64_t _PEEK_OFFSET = PEEK_OFFSET, _LOW_PEEK_OFFSET = LOW_PEEK_OFFSET, NEVER = MASK


@final
cdef class Ledger:
    """The ledger of this worker; ``uncovered`` counts how often a connection did not fit into it."""

    cdef object memory
    cdef uint8_t *base
    cdef uint8_t *input_window
    cdef uint8_t *output_window
    cdef uint8_t *arena
    cdef uint64_t *begun_used
    cdef uint64_t *records_used
    cdef uint64_t *current  # the number of the connection whose input is worked through
    cdef Record *records
    cdef Begun *begun
    cdef UnixCount *unix_counts
    cdef kernel_message *message  # what was sent last at a Unix socket
    cdef uint64_t *sending  # the number of its connection, and how much was written of that before
    cdef iovec piece
    cdef public uint64_t peek_offset  # that Unix sockets get
    cdef int32_t most_records, most_begun, free_record, free_begun
    cdef int32_t *next_record  # of the free ones
    cdef int32_t *next_begun  # of the free ones, or of those of the same connection
    cdef int32_t *previous_begun
    cdef int32_t blocks  # of the smallest order
    cdef uint8_t *orders  # by block: of the block that begins there
    cdef int32_t *next_block  # of the free ones of an order
    cdef int32_t *previous_block
    cdef int32_t first_block[ORDERS]
    cdef public Py_ssize_t uncovered
    cdef Py_ssize_t used, most_used  # bytes of blocks; at most, since memory was given back

    def __cinit__(self):
        cdef int place
        self.free_record = self.free_begun = NO_BLOCK
        for place in range(ORDERS):
            self.first_block[place] = NO_BLOCK

    def __init__(self, memory, shape):
        """``memory`` is the mapped file, all zeros."""
        cdef uint8_t[::1] view = memory
        self.memory = view
        self.base = &view[0]
        self.begun_used = <uint64_t *>self.base
        self.current = self.begun_used + 1
        self.records_used = self.begun_used + 2
        self.records = <Record *>(self.base + <size_t>shape.records_at)
        self.begun = <Begun *>(self.base + <size_t>shape.begun_at)
        self.unix_counts = <UnixCount *>(self.base + <size_t>shape.unix_counts_at)
        self.message = <kernel_message *>(self.base + <size_t>SENDING_AT - TAKEN_AT)
        self.message.header.pieces = &self.piece
        self.message.header.piece_count = 1
        self.sending = <uint64_t *>(self.base + <size_t>SENDING_AT) + 1
        self.peek_offset = _PEEK_OFFSET
        mlock(self.base, 4096)  # the kernel writes into it, which may not fail in a process that is killed
        self.input_window = self.base + <size_t>shape.window_at
        self.output_window = self.input_window + <size_t>INPUT_WINDOW
        self.arena = self.base + <size_t>shape.arena_at
        self.most_records = shape.records
        self.most_begun = shape.begun
        self.blocks = shape.arena_bytes >> SMALLEST_ORDER
        self.next_record = <int32_t *>malloc(self.most_records * sizeof(int32_t))
        self.next_begun = <int32_t *>malloc(self.most_begun * sizeof(int32_t))
        self.previous_begun = <int32_t *>malloc(self.most_begun * sizeof(int32_t))
        self.orders = <uint8_t *>calloc(self.blocks, 1)
        self.next_block = <int32_t *>malloc(self.blocks * sizeof(int32_t))
        self.previous_block = <int32_t *>malloc(self.blocks * sizeof(int32_t))
        if (
            self.next_record == NULL or self.next_begun == NULL or self.previous_begun == NULL
            or self.orders == NULL or self.next_block == NULL or self.previous_block == NULL
        ):
            raise MemoryError
        self.put_free(0, (<int>shape.arena_bytes.bit_length()) - 1)

    def __dealloc__(self):
        free(self.next_record)
        free(self.next_begun)
        free(self.previous_begun)
        free(self.orders)
        free(self.next_block)
        free(self.previous_block)

    # -- records

    cdef Record *new_record(self) noexcept:
        """Return a record that nobody reads before its number is set; NULL if there is none left."""
        cdef int32_t place = self.free_record
        if place != NO_BLOCK:
            self.free_record = self.next_record[place]
        elif self.records_used[0] < <uint64_t>self.most_records:
            place = <int32_t>self.records_used[0]
            store(self.records_used, place + 1)
        else:
            return NULL
        return &self.records[place]

    cdef void drop_record(self, Record *record) noexcept:
        cdef int32_t place = <int32_t>(record - self.records)
        store(&record.number, 0)
        self.next_record[place] = self.free_record
        self.free_record = place

    # -- begun calls

    cdef inline int32_t new_begun(self) noexcept:
        cdef int32_t place = self.free_begun
        if place != NO_BLOCK:
            self.free_begun = self.next_begun[place]
        elif self.begun_used[0] < <uint64_t>self.most_begun:
            place = <int32_t>self.begun_used[0]
            store(self.begun_used, place + 1)
        return place

    cdef void drop_begun(self, int32_t place) noexcept:
        store(&self.begun[place].number, 0)
        self.next_begun[place] = self.free_begun
        self.free_begun = place

    # -- blocks: of 2 ** order bytes, each beside the one with which it was split

    cdef uint8_t *new_block(self, size_t length) noexcept:
        """Return a block of at least ``length`` bytes; NULL if there is none."""
        cdef int order = SMALLEST_ORDER, found
        cdef int32_t place
        while order < ORDERS and (<size_t>1 << order) < length:
            order += 1
        found = order
        while found < ORDERS and self.first_block[found] == NO_BLOCK:
            found += 1
        if found >= ORDERS:
            return NULL
        place = self.first_block[found]
        self.take_free(place, found)
        while found > order:
            found -= 1
            self.put_free(place + (1 << (found - SMALLEST_ORDER)), found)
        self.orders[place] = <uint8_t>order
        self.used += <Py_ssize_t>1 << order
        self.most_used = max(self.most_used, self.used)
        return self.arena + (<size_t>place << SMALLEST_ORDER)

    cdef size_t block_size(self, const uint8_t *block) noexcept:
        return <size_t>1 << self.orders[<size_t>(block - self.arena) >> SMALLEST_ORDER]

    cdef void drop_block(self, const uint8_t *block) noexcept:
        cdef int32_t place = <int32_t>(<size_t>(block - self.arena) >> SMALLEST_ORDER)
        cdef int32_t other
        cdef int order = self.orders[place]
        self.used -= <Py_ssize_t>1 << order
        while True:
            other = place ^ (1 << (order - SMALLEST_ORDER))
            if other >= self.blocks or self.orders[other] != (order | FREE):
                break
            self.take_free(other, order)
            place = min(place, other)
            order += 1
        self.put_free(place, order)

    @property
    def freed_bytes(self):
        """How much more there was in blocks at once, since memory was given back, than there is now."""
        return self.most_used - self.used

    def give_back_freed_memory(self):
        """Let the kernel have the memory of large blocks that are free. It comes anew, as zeros, when they are used."""
        cdef int order
        cdef int32_t place
        for order in range(GIVEN_BACK_ORDER, ORDERS):
            place = self.first_block[order]
            while place != NO_BLOCK:
                madvise(self.arena + (<size_t>place << SMALLEST_ORDER), <size_t>1 << order, MADV_REMOVE)
                place = self.next_block[place]
        self.most_used = self.used

    cdef void put_free(self, int32_t place, int order) noexcept:
        cdef int32_t first = self.first_block[order]
        self.orders[place] = <uint8_t>(order | FREE)
        self.next_block[place] = first
        self.previous_block[place] = NO_BLOCK
        if first != NO_BLOCK:
            self.previous_block[first] = place
        self.first_block[order] = place

    cdef void take_free(self, int32_t place, int order) noexcept:
        cdef int32_t after = self.next_block[place], before = self.previous_block[place]
        if before == NO_BLOCK:
            self.first_block[order] = after
        else:
            self.next_block[before] = after
        if after != NO_BLOCK:
            self.previous_block[after] = before
        self.orders[place] = 0

    cdef uint64_t place_of(self, const uint8_t *at) noexcept:
        """Return where in the file ``at`` lies."""
        return <uint64_t>(at - self.base)


@final
cdef class Note:
    """What the ledger holds of one connection: its record, its begun calls, and the blocks of its input and output."""

    cdef Ledger ledger
    cdef Record *record
    cdef Begun *table  # the ledger's begun calls, and how they are linked
    cdef int32_t *after
    cdef int32_t *before
    cdef int32_t newest  # the call that has begun last, if it has not ended; it is linked when another one begins
    cdef int32_t first, last  # of the other begun calls that are not answered
    cdef int32_t answered, first_answered  # the calls whose replies are not in the ledger yet, from last to first
    cdef uint8_t *output  # a block with output that the kernel has no room for, and which stands nowhere else
    cdef uint64_t number, received, sent, copied  # bytes of the streams; output stands in the ledger up to `copied`
    cdef UnixCount *unix_count  # NULL: the kernel counts both streams
    cdef uint64_t low_at  # when so much was received, the peek offset is low

    def __cinit__(self, Ledger ledger, uint64_t number, uint64_t read, uint64_t written, int unix_socket=-1):
        """``unix_socket`` is the descriptor of one."""
        self.ledger = ledger
        self.number = number
        self.received = read + _SHIFT
        self.sent = self.copied = written
        self.table, self.after, self.before = ledger.begun, ledger.next_begun, ledger.previous_begun
        self.newest = self.first = self.last = self.answered = self.first_answered = NO_BLOCK
        self.record = ledger.new_record()
        if self.record == NULL:
            ledger.uncovered += 1
            raise MemoryError
        self.record.border = self.received
        self.record.output_end = written
        self.record.flags = 0
        self.record.check = number ^ _CHECK
        self.low_at = NEVER
        if unix_socket >= 0:
            self.count_here(unix_socket)

    cdef void begin(self) noexcept:
        """Make the record valid."""
        store(&self.record.number, self.number)

    cdef int count_here(self, int fd) except -1:
        """Count the streams of a Unix socket, from 0: it may have been here before, with other offsets."""
        cdef Ledger ledger = self.ledger
        cdef uint64_t place
        for place in range(ledger.begun_used[0]):
            if ledger.begun[place].number == self.number:
                store(&ledger.begun[place].number, 0)
        self.unix_count = &ledger.unix_counts[self.record - ledger.records]
        self.unix_count.written = self.sent
        store(ledger.sending, 0)
        if not self.set_peek_offset(fd):
            ledger.drop_record(self.record)
            self.record = NULL
            raise MemoryError
        return 0

    cdef bint set_peek_offset(self, int fd) noexcept:
        """Set the peek offset, from which the kernel takes what is read from now on."""
        cdef int offset = <int>self.ledger.peek_offset
        cdef uint64_t sum_ = self.received - _SHIFT + <uint64_t>offset
        store(&self.unix_count.sum, sum_)
        if setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)):
            return False
        store(&self.unix_count.low_sum, sum_)
        self.low_at = self.received + <uint64_t>offset - _LOW_PEEK_OFFSET + 1
        return True

    cdef void end(self) noexcept:
        """Make the record invalid, and give everything back."""
        cdef int32_t place
        if self.record == NULL:
            return
        self.ledger.drop_record(self.record)
        self.record = NULL
        self.link_newest()
        while self.first != NO_BLOCK:
            place = self.first
            self.first = self.after[place]
            self.ledger.drop_begun(place)
        while self.answered != NO_BLOCK:
            place = self.answered
            self.answered = self.after[place]
            self.ledger.drop_begun(place)
        self.drop_output()

    # -- calls

    cdef inline int32_t note_begun(self, uint64_t input_end, uint32_t msgid, uint32_t kind) noexcept:
        """Note a call that begins, whose message ends at an offset of the input. Returns its place."""
        cdef int32_t place = self.ledger.new_begun()
        cdef Begun *begun
        if place == NO_BLOCK:
            self.lose_note()
            return NO_BLOCK
        self.link_newest()
        self.newest = place
        begun = &self.table[place]
        store(&begun.number, 0)  # until here the entry was that of an answered call
        begun.input_end = input_end
        begun.reply_end = 0
        begun.msgid = msgid
        begun.kind = kind
        store(&begun.number, self.number)
        store(&self.record.border, input_end)
        return place

    cdef void lose_note(self) noexcept:
        """End the record for good, since nobody could tell that a call has begun."""
        self.ledger.uncovered += 1
        store(&self.record.number, 0)
        self.number = 0

    cdef inline void link_newest(self) noexcept:
        cdef int32_t place = self.newest
        if place == NO_BLOCK:
            return
        self.newest = NO_BLOCK
        self.after[place] = NO_BLOCK
        self.before[place] = self.last
        if self.last == NO_BLOCK:
            self.first = place
        else:
            self.after[self.last] = place
        self.last = place

    cdef void unlink(self, int32_t place) noexcept:
        cdef int32_t after, before
        if place == self.newest:
            self.newest = NO_BLOCK
            return
        after, before = self.after[place], self.before[place]
        if before == NO_BLOCK:
            self.first = after
        else:
            self.after[before] = after
        if after == NO_BLOCK:
            self.last = before
        else:
            self.before[after] = before

    cdef int32_t find(self, uint32_t msgid, uint32_t kind) noexcept:
        cdef int32_t place
        self.link_newest()
        place = self.first
        while place != NO_BLOCK and (self.table[place].kind != kind or self.table[place].msgid != msgid):
            place = self.after[place]
        return place

    cdef inline void answer_begun(self, int32_t place, uint32_t msgid) noexcept:
        """Note that the reply to the request at ``place`` is gathered; another one may stand there by now."""
        if place != self.newest or place == NO_BLOCK or self.table[place].msgid != msgid:
            place = self.find(msgid, REQUEST_KIND)
        self.note_answered(place)

    cdef inline void note_answered(self, int32_t place) noexcept:
        """Note that the reply to a call is gathered: the call is answered once more output stands in the ledger."""
        if place == NO_BLOCK:
            return
        self.unlink(place)
        store(&self.table[place].reply_end, self.record.output_end + 1)
        if self.answered == NO_BLOCK:
            self.first_answered = place
        self.after[place] = self.answered
        self.answered = place

    cdef void forget_call(self, int32_t place) noexcept:
        """Forget a begun call that gets no reply, or has not begun after all."""
        if place != NO_BLOCK:
            self.unlink(place)
            self.ledger.drop_begun(place)

    cdef inline void free_answered(self) noexcept:
        """Give back the entries of calls whose replies stand in the ledger; they say so themselves."""
        if self.answered != NO_BLOCK:
            self.after[self.first_answered] = self.ledger.free_begun
            self.ledger.free_begun = self.answered
            self.answered = NO_BLOCK

    # -- input

    cdef void put_input(self, const uint8_t *at) noexcept:
        """Let the next bytes of the stream stand at ``at``, or what was not begun, which has been copied there."""
        store(&self.record.input_zero, self.ledger.place_of(at) - self.received)

    # -- output

    cdef int publish(self, wire_buffer *out, bint goes_now) except -1:
        """Let all unsent output stand in the ledger, with the calls that it answers: what it has, then ``out``.

        What gets into a block leaves ``out``; the window is for what is sent at once (``goes_now``) and `note_sent`.
        """
        cdef Ledger ledger = self.ledger
        cdef size_t fresh = out.end - out.start, known = self.unsent_in_block(), place
        cdef uint8_t *block
        if self.output != NULL:
            if not fresh:
                return 0
            place = <size_t>(self.record.output_zero + self.sent - ledger.place_of(self.output))
            if place + known + fresh <= ledger.block_size(self.output):
                self.move_out(self.output + place + known, out)
                self.set_end(self.sent + known + fresh)
                return 0
        elif goes_now and fresh <= _OUTPUT_WINDOW:
            memcpy(ledger.output_window, out.bytes + out.start, fresh)
            store(&self.record.output_zero, ledger.place_of(ledger.output_window) - self.sent)
            self.set_end(self.sent + fresh)
            return 0
        block = ledger.new_block(known + fresh + (known + fresh) // 2)
        if block == NULL:
            block = ledger.new_block(known + fresh)
        if block == NULL:
            self.be_bare(out)
            return 0
        if known:
            memcpy(block, self.output + place, known)
        self.move_out(block + known, out)
        store(&self.record.output_zero, ledger.place_of(block) - self.sent)
        self.drop_output()
        self.output = block
        self.set_end(self.sent + known + fresh)
        return 0

    cdef void publish_response(self, uint8_t *block, uint32_t msgid, PyObject *result) noexcept:
        """Let a reply be all output; ``block`` has room for it."""
        cdef wire_buffer whole
        whole.bytes = block
        whole.start = whole.end = 0
        whole.room = self.ledger.block_size(block)
        wire_response(&whole, msgid, result)
        store(&self.record.output_zero, self.ledger.place_of(block) - self.sent)
        self.output = block
        self.set_end(self.sent + whole.end)

    cdef inline size_t unsent_in_block(self) noexcept:
        """Return how much output stands in the ledger alone."""
        return 0 if self.output == NULL else <size_t>(self.copied - self.sent)

    cdef inline const uint8_t *first_unsent(self) noexcept:
        """Return where it stands."""
        return self.ledger.base + self.record.output_zero + self.sent

    cdef void move_out(self, uint8_t *to, wire_buffer *out) noexcept:
        memcpy(to, out.bytes + out.start, out.end - out.start)
        out.start = out.end

    cdef inline void set_end(self, uint64_t end) noexcept:
        store(&self.record.output_end, end)
        self.copied = end
        if self.record.flags & BARE_OUTPUT:
            store(&self.record.flags, self.record.flags & ~BARE_OUTPUT)
        self.free_answered()

    cdef ssize_t send_counted(self, int fd, const uint8_t *bytes, size_t length) noexcept:
        """Send at a Unix socket as send(2) does, and let the kernel write into the ledger how much it takes."""
        cdef Ledger ledger = self.ledger
        store(ledger.sending, 0)
        ledger.message.taken = 0
        ledger.sending[1] = self.sent
        ledger.piece.iov_base = <void *>bytes
        ledger.piece.iov_len = length
        store(ledger.sending, self.number)
        if syscall(SYS_sendmmsg, fd, ledger.message, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0:
            return -1
        return <ssize_t>ledger.message.taken

    cdef int note_sent(self, wire_buffer *out, size_t sent) except -1:
        """Note that the kernel has taken so many bytes of what was published; the rest leaves the window for a block."""
        cdef Ledger ledger = self.ledger
        cdef uint8_t *block
        cdef size_t length
        self.sent += sent
        if self.unix_count != NULL:
            store(&self.unix_count.written, self.sent)
        if self.output != NULL:
            if self.sent == self.copied:
                self.drop_output()
            return 0
        out.start += sent
        length = out.end - out.start
        if not length:
            if self.record.flags & BARE_OUTPUT:
                self.set_end(self.sent)
        elif not self.record.flags & BARE_OUTPUT:
            block = ledger.new_block(length)
            if block == NULL:
                self.be_bare(out)
                return 0
            self.move_out(block, out)
            store(&self.record.output_zero, ledger.place_of(block) - self.sent)
            self.output = block
        return 0

    cdef int be_bare(self, wire_buffer *out) except -1:
        """Note that the output does not fit into the ledger, until it is sent or fits again; ``out`` has all of it."""
        cdef size_t fresh = out.end - out.start, known = self.unsent_in_block()
        if known:
            if buffer_reserve(out, known):
                raise MemoryError
            memmove(out.bytes + out.start + known, out.bytes + out.start, fresh)
            memcpy(out.bytes + out.start, self.first_unsent(), known)
            out.end += known
        self.ledger.uncovered += 1
        store(&self.record.flags, self.record.flags | BARE_OUTPUT)
        self.drop_output()
        return 0

    cdef void drop_output(self) noexcept:
        if self.output != NULL:
            self.ledger.drop_block(self.output)
            self.output = NULL
