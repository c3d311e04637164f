"""Native threads of a worker: the pool for ``@rpc(thread=True)``, the loop for coroutines, the watch over both loops.

gevent has patched what such threads are usually made of. So they are made here of what was there before: `_thread`,
`_queue`, `select.epoll`. They wake the hub by a watcher; no greenlet waits for a native thread in any other way.
"""
