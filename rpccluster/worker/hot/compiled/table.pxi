# The methods by the bytes of their names; a part of `_turn.pyx`.

cdef struct Entry:  # a method, by its name's bytes
    uint64_t hash
    const uint8_t *bytes
    size_t length
    PyObject *name
    PyObject *function
    PyObject *self  # NULL if the function is no bound method
    uint64_t number
    PyObject *buckets  # a tuple, or NULL if the method has no rate
    bint is_guarded  # it may be refused: it has a rate, or is led
    uint64_t *counts  # its cells in the file of the counters, or NULL
    bint is_led  # only a leader may run it: the turn compares, and calls what the wrapper wraps
    bint is_own  # of the package: its name begins with "rpc."
    bint is_bounding  # it is `rpc.call`


cdef inline uint64_t hash_of(const uint8_t *bytes, size_t length) noexcept:
    cdef uint64_t found = 14695981039346656037ULL
    cdef size_t at
    for at in range(length):
        found = (found ^ bytes[at]) * 1099511628211ULL
    return found


cdef uint64_t *cells_in(memory) except? NULL:
    """Return where these cells are, which stay there; NULL for None."""
    cdef uint64_t[:] cells
    if memory is None:
        return NULL
    cells = memory
    return &cells[0]


@final
cdef class Table:
    """The methods by the bytes of their names; replaced as a whole when they are wrapped anew."""

    cdef Entry *entries
    cdef size_t mask
    cdef list kept  # keeps what the entries point to

    def __cinit__(self, methods, table, numbers, buckets, known):
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
            is_led = hasattr(function, LED)
            if is_led:
                function = getattr(function, LED)
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
            own = buckets.get(name)
            if own is not None:
                self.kept.append(own)
                entry.buckets = <PyObject *>own
            entry.counts = cells_in(known.get(name))
            entry.is_led = is_led
            entry.is_guarded = is_led or own is not None
            entry.is_own = name.startswith(RESERVED)
            entry.is_bounding = name == CALL
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


cdef class View:
    """The tables of the peers that may call the same."""

    cdef Table table, table_when_full
