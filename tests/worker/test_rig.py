"""What tests of the worker wait by."""

from __future__ import annotations

import gc
import os
import socket

import gevent

from .native.beside import Beside
from .rig import Rig, settle, until


def test_the_loop_is_turned_until_nothing_more_happens() -> None:
    """One thing may lead to another: callbacks, timers that are due, and what a socket is told."""
    loop = gevent.get_hub().loop
    left, seen = 200, []

    def run() -> None:
        nonlocal left
        left -= 1
        seen.append("callback")
        if not left % 3:
            timer.start(run)
        elif not left % 2:
            ours.send(b"x")
        elif left > 0:
            loop.run_callback(run)

    def read() -> None:
        seen.append(theirs.recv(1))
        loop.run_callback(run)

    ours, theirs = socket.socketpair()
    timer = loop.timer(0.0, priority=-1)
    later = loop.timer(60.0)
    later.start(seen.append, "later")
    reader = loop.io(theirs.fileno(), 1)
    reader.start(read)
    run()
    settle()
    assert left <= 0
    assert seen.count("callback") == 200 - left
    assert b"x" in seen
    assert "later" not in seen
    for watcher in (timer, later, reader):
        watcher.stop()
        watcher.close()
    ours.close()
    theirs.close()


def test_the_inside_of_a_worker_leaves_no_descriptor() -> None:
    """Not for calls in threads and on the asyncio loop, which wake the loop of the worker, nor for connections."""

    def descriptors() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    def run() -> None:
        rig = Rig(Beside())
        peer = rig.connect(tcp=True)
        assert [peer.call(method, 1) for method in ("echo", "t_echo", "a_echo")] == [1, 1, 1]
        rig.close()

    run()  # the first one imports, and makes what the process keeps
    before = descriptors()
    run()
    until(lambda: descriptors() <= before, "the descriptors of its threads are closed")
