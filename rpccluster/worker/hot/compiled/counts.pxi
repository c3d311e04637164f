# Histograms in the file of the counters; a part of `_turn.pyx`. `rpccluster.metrics.layout` says what stands where.

cdef uint64_t BUCKET_NS = _BUCKET_NS
cdef int LAST_BUCKET = _BUCKETS - 1


cdef inline void observe(uint64_t *cells, int64_t nanoseconds) noexcept:
    """Add a duration to a histogram."""
    cdef uint64_t units = <uint64_t>nanoseconds // BUCKET_NS if nanoseconds > 0 else 0
    cdef int bucket = 64 - leading_zeros(units) if units else 0
    cells[0] += <uint64_t>nanoseconds if nanoseconds > 0 else 0
    cells[1 + min(bucket, LAST_BUCKET)] += 1
