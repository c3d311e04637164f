# How many calls of a rule may pass; a part of `_turn.pyx`.

cdef class Bucket:
    """The twin of `rpccluster.worker.access.bucket.Bucket`."""

    cdef public double tokens, granted, per_ns, most
    cdef public int64_t at_ns, refused

    @property
    def used(self):
        """The number of calls that have passed."""
        return self.granted - self.tokens

    def grant(self, double tokens, double per_ns, double most, int64_t at_ns):
        """Let ``tokens`` calls pass, and ``per_ns`` more from ``at_ns`` on, up to ``most``."""
        self.granted += tokens - self.tokens
        self.tokens = tokens
        self.per_ns = per_ns
        self.most = most
        self.at_ns = at_ns

    cpdef bint take(self):
        """Let one call pass; returns False if none may."""
        if self.tokens < 1.0:
            self.accrue()
            if self.tokens < 1.0:
                self.refused += 1
                return False
        self.tokens -= 1.0
        return True

    cdef void accrue(self) noexcept:
        cdef int64_t now = now_ns()
        cdef double grown
        if now > self.at_ns:
            grown = min((now - self.at_ns) * self.per_ns, self.most - self.tokens)
            self.at_ns = now
            self.tokens += grown
            self.granted += grown


cdef bint take_all(tuple buckets):
    """Take one call from each of ``buckets``, or from none."""
    cdef Py_ssize_t place, other
    for place in range(len(buckets)):
        if not (<Bucket>buckets[place]).take():
            give_back_all(buckets, place)
            return False
    return True


cdef int give_back_all(tuple buckets, Py_ssize_t count) except -1:
    """Give back what `take_all` has taken from the first ``count`` buckets."""
    cdef Py_ssize_t place
    for place in range(count):
        (<Bucket>buckets[place]).tokens += 1.0
    return 0
