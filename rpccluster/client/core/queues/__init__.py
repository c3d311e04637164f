"""What `rpccluster.Queue` and `rpccluster.aio.Queue` have in common: each verb once, as steps that a face performs.

See docs/queue.md. Does no I/O and reads no clock; runs in programs that put and get, in workers and in plugins.
"""
