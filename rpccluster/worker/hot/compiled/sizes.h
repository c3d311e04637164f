/* The sizes by which the compiled engine divides its work. With RPCCLUSTER_TINY defined they are so small that short
   tests meet every border: messages in many pieces, slices of a few calls, buffers that are given back at once. */
#ifdef RPCCLUSTER_TINY
#define EVENTS 3
#define SLICE_NS 5000
#define CLOCK_EVERY 1
#define MOST_LIGHT 2
#define RECEIVE_BYTES 777
#define RECEIVE_MORE_BYTES 777
#define RECEIVE_FEW_BYTES 99
#define SPARE_BYTES 512
#define LARGE_CALL_BYTES 333
#define LIGHT_BYTES 111
#define LARGE_BYTES 444
#else
#define EVENTS 256
#define SLICE_NS 1000000
#define CLOCK_EVERY 8           /* calls, between two looks at the clock */
#define MOST_LIGHT 8            /* connections in a row before one that goes on with kept input */
#define RECEIVE_BYTES 98304     /* a message of 64 KiB, whole */
#define RECEIVE_MORE_BYTES 262144 /* of a long message */
#define RECEIVE_FEW_BYTES 2048  /* while others wait */
#define SPARE_BYTES 262144      /* a larger buffer is not kept */
#define LARGE_CALL_BYTES 65536
#define LIGHT_BYTES 1024        /* a longer message may take its time */
#define LARGE_BYTES 16384       /* kept input above this takes memory that is worth giving back */
#endif
