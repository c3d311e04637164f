# The call that a runner runs; a part of `_turn.pyx`.

@final
cdef class Frame:
    """What a runner runs: the connection, and the call, whose decoded form is made when it is asked for."""

    cdef public object port  # None while it waits for a call, or when its call was answered without it
    cdef object message, name, context
    cdef object limit  # of time, once somebody has asked for it
    cdef bint is_bounded  # its caller has set a deadline, at `ends_ns`
    cdef int64_t ends_ns
    cdef public bint is_interrupted  # its call has to end with what was thrown into it
    cdef Table table  # where its runner finds the methods of this connection
    cdef bint is_when_full
    cdef uint32_t msgid
    cdef int32_t begun  # where the ledger has its call
    cdef uint64_t *counts  # the cells of its method, while a call runs that is timed
    cdef object known  # the cells of all methods, by name
    cdef public int64_t began, waited  # when the call has begun, in monotonic nanoseconds; how long it has waited
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
        if self.counts != NULL:
            self.counts = cells_in(self.known.get(message[len(message) - 2])) if type(message) is list else NULL

    cdef int bound_again(self) except -1:
        """Make the call the one that came: it begins later, with the deadline that it has."""
        params = self.get_call()[3]
        self.set_call([0, self.msgid, CALL, [self.name, params, Terms(self.ends_ns / 1e9, None)]])
        return 0

    cdef void drop_params(self) noexcept:
        """Let go of the params; code of the service may run, and block, when one is deleted."""
        cdef int place, count = self.count
        self.count = 0
        self.is_interrupted = self.is_bounded = False
        self.name = self.message = None
        for place in range(count):
            Py_DECREF(<object>self.slots[2 + place])

    def __dealloc__(self):
        self.drop_params()


cdef object limit_of(runner, Frame frame):
    """Return the time limit of the present call; the deadline of its caller becomes one only now."""
    if frame.limit is None and frame.is_bounded:
        frame.limit = deadline(runner, frame.ends_ns / 1e9)
    return frame.limit


cdef class CallLimit:
    """The `limit` of a runner, as an attribute of its class."""

    def __get__(self, runner, kind):
        return self if runner is None else limit_of(runner, <Frame>runner.frame)

    def __set__(self, runner, limit):
        (<Frame>runner.frame).limit = limit


cdef inline PyObject *call_method(Frame frame, Entry *entry) noexcept:
    """Call the method of ``entry`` with the params in ``frame``. Returns NULL if it has raised, which may be taken then."""
    cdef PyObject *function = entry.function
    cdef PyObject *own = entry.self
    cdef PyObject *result
    Py_INCREF(<object>function)  # its table may be replaced meanwhile
    if own != NULL:
        Py_INCREF(<object>own)
        frame.slots[1] = own
        result = PyObject_Vectorcall(function, &frame.slots[1], (<size_t>frame.count + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        Py_DECREF(<object>own)
    else:
        result = PyObject_Vectorcall(function, &frame.slots[2], (<size_t>frame.count) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
    Py_DECREF(<object>function)
    return result
