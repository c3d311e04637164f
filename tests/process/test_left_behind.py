"""Work that calls leave behind when their worker ends: it is waited for, as Python does, within graceful_timeout."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from rpccluster.testing import RunningCluster, wait_until

SERVICE = """
import os, threading, time
from concurrent.futures import ThreadPoolExecutor

import gevent
from gevent.monkey import get_original

from rpccluster import Service

class Leaving(Service):
    def worker_started(self, worker):
        self.executor = ThreadPoolExecutor(2)
        gevent.spawn(self.loop)
        threading.Thread(target=self.loop).start()

    def worker_stopping(self, worker):
        self.note("stopping")
        self.executor.submit(self.note, "one more")

    def loop(self):
        while True:
            time.sleep(0.05)

    def note(self, text, seconds=0, sleep=time.sleep):
        sleep(seconds)
        with open("done", "a") as done:
            done.write(text + "\\n")

    def leave(self, seconds):
        self.executor.submit(self.note, "own executor", seconds)
        ThreadPoolExecutor(1).submit(self.note, "executor", seconds)
        threading.Thread(target=self.note, args=("thread", seconds)).start()
        threading.Thread(target=self.loop, daemon=True).start()
        gevent.spawn(gevent.spawn_later, 0.05, self.note, "greenlet", seconds)
        native = get_original("time", "sleep")
        gevent.get_hub().threadpool.spawn(self.note, "native thread", seconds, native)
        return os.getpid()

    def never_end(self):
        threading.Thread(target=self.loop, name="endless thread").start()
        gevent.spawn(self.loop)
        return os.getpid()
"""


def test_it_is_waited_for(make_cluster: Callable[..., RunningCluster]) -> None:
    """Executors, threads, greenlets, native threads; what the service began itself is its own to end."""
    running = make_cluster(service="leaving:Leaving", number_workers=1, graceful_timeout=60, chdir=".")
    running.write_module("leaving", SERVICE)
    running.start()
    with running.client() as client:
        pid = client.call("leave", 0.7)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not running.worker(pid), what="it is gone before its graceful_timeout is over")
    done = (running.folder / "done").read_text().split("\n")[:-1]
    assert set(done) == {"own executor", "executor", "thread", "greenlet", "native thread", "stopping", "one more"}
    assert {"thread", "greenlet", "native thread"} <= set(done[: done.index("stopping")])
    assert "Cut at" not in running.log_text()


def test_what_does_not_end_is_cut_and_told(make_cluster: Callable[..., RunningCluster]) -> None:
    """When graceful_timeout is over, with its name."""
    running = make_cluster(service="leaving:Leaving", number_workers=1, graceful_timeout=1, chdir=".")
    running.write_module("leaving", SERVICE)
    running.start()
    with running.client() as client:
        pid = client.call("never_end")
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    text = "Cut off at the end of graceful_timeout what calls had left behind: "
    (line,) = [line for line in running.log_text().splitlines() if text in line]
    assert f"[{pid}] [WARNING]" in line
    assert sorted(line.partition(text)[2].split(", ")) == ["greenlet loop", "thread endless thread"]
    assert (running.folder / "done").read_text() == "stopping\none more\n"
