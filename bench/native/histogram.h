/* Counts of latencies in nanoseconds, in buckets less than 1 % wide. Used by the load generator. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

enum { STEPS = 128, BUCKETS = 58 * STEPS + 2 * STEPS };

typedef struct {
    uint64_t count, longest;
    uint32_t buckets[BUCKETS];
} histogram;

/* Below 256 every value has a bucket; above, each doubling is cut into 128 steps. */
static inline uint32_t histogram_bucket(uint64_t value)
{
    if (value < 2 * STEPS)
        return (uint32_t)value;
    uint32_t shift = 63 - (uint32_t)__builtin_clzll(value) - 7;
    return shift * STEPS + (uint32_t)(value >> shift);
}

static inline void histogram_add(histogram *all, uint64_t value)
{
    all->count++;
    all->buckets[histogram_bucket(value)]++;
    if (value > all->longest)
        all->longest = value;
}

/* The middle of the bucket that holds the given share (0 to 1) of all values; 0 when there are none. */
static inline uint64_t histogram_quantile(const histogram *all, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)all->count), seen = 0;
    for (uint32_t bucket = 0; bucket < BUCKETS; bucket++) {
        seen += all->buckets[bucket];
        if (seen > wanted) {
            if (bucket < 2 * STEPS)
                return bucket;
            uint32_t shift = bucket / STEPS - 1;
            uint64_t low = (uint64_t)(bucket - shift * STEPS) << shift;
            uint64_t middle = low + ((uint64_t)1 << shift) / 2;
            return middle < all->longest ? middle : all->longest;
        }
    }
    return all->longest;
}

#endif
