# The kernel, CPython and the codec, as `_turn.pyx` calls them.

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC, CLOCK_BOOTTIME
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
    int MSG_NOSIGNAL, MSG_DONTWAIT, SOL_SOCKET, SO_PEEK_OFF
    int setsockopt(int fd, int level, int what, const void *value, unsigned int length)
    ssize_t recv(int fd, void *bytes, size_t length, int flags)
    ssize_t send(int fd, const void *bytes, size_t length, int flags)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/mman.h>" nogil:
    int MADV_REMOVE
    int mlock(const void *memory, size_t length)
    int madvise(void *memory, size_t length, int advice)

cdef extern from "<sys/syscall.h>" nogil:
    long SYS_sendmmsg

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    long syscall(long number, ...)

cdef extern from *:
    int leading_zeros "__builtin_clzll"(unsigned long long) nogil

cdef extern from "Python.h":
    PyObject *PyObject_Vectorcall(PyObject *function, PyObject **arguments, size_t count, PyObject *names)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    void PyErr_Fetch(PyObject **kind, PyObject **value, PyObject **traceback)
    void PyErr_NormalizeException(PyObject **kind, PyObject **value, PyObject **traceback)
    int PyException_SetTraceback(PyObject *value, PyObject *traceback)
    Py_ssize_t PyObject_Size(PyObject *what)
    bint PyBytes_CheckExact(PyObject *what)
    Py_ssize_t PyBytes_GET_SIZE(PyObject *what)

cdef extern from "../../../protocol/wire/wire.h":
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
    int wire_target(wire_reader *r, wire_envelope *e)
    int wire_timeout(wire_reader *r, double *seconds)
    PyObject *wire_decode_quietly(wire_reader *r, int depth_left, int *status)
    int wire_response(wire_buffer *b, uint32_t msgid, PyObject *value)
    int buffer_reserve(wire_buffer *b, size_t more)
    int buffer_add(wire_buffer *b, const void *bytes, size_t length)
    void buffer_free(wire_buffer *b)

cdef extern from *:
    """
    /* All that was written before it stands in memory first, and all that is written later does not. */
    static inline void store(uint64_t *place, uint64_t value)
    {
        __atomic_store_n(place, value, __ATOMIC_RELEASE);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
    }
    """
    void store(uint64_t *place, uint64_t value) nogil

cdef extern from *:
    """
    #include <stddef.h>
    /* The mmsghdr of sendmmsg(2), as the kernel has it: a C library may have another, or write the end itself. */
    struct kernel_message {
        struct {
            void *name;
            int name_length;
            struct iovec *pieces;
            size_t piece_count;
            void *control;
            size_t control_length;
            unsigned int flags;
        } header;
        unsigned int taken;
    };
    #define TAKEN_AT offsetof(struct kernel_message, taken)
    """
    struct message_header "kernel_message.header":
        iovec *pieces
        size_t piece_count
    struct kernel_message:
        message_header header
        unsigned int taken
    size_t TAKEN_AT
