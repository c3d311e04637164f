"""A worker at odds with itself, or at its end while the cluster stops: connections and the log are as ever."""

from __future__ import annotations

import signal

from rpccluster.testing import wait_until

SERVICE = """
import os, time
import gevent
from rpccluster import Service

while os.path.exists("boots_later"):
    time.sleep(0.02)

class Faulty(Service):
    def pid(self):
        return os.getpid()

    def crash(self):
        gevent.spawn(gevent.get_hub().parent.throw, RuntimeError("thrown"))

    def worker_stopping(self, worker):
        if os.path.exists("wait"):
            open("waits", "w").close()
            while os.path.exists("wait"):
                time.sleep(0.02)
"""


def test_what_is_thrown_into_the_main_greenlet_ends_no_connection(make_cluster):
    """The worker serves on until its successor is ready, and gives its connections away."""
    running = make_cluster(service="faulty:Faulty", number_workers=1)
    running.write_module("faulty", SERVICE)
    (crashed,) = running.start().worker_pids()
    with running.client() as client, running.client() as other:
        assert other.call("pid") == crashed
        (running.folder / "boots_later").touch()
        client.call("crash")
        running.wait_log("Worker crashed")
        assert client.call("pid") == crashed
        (running.folder / "boots_later").unlink()
        wait_until(lambda: client.call("pid") != crashed, what="a successor serves")
        assert other.call("pid") == client.call("pid")
    assert f"Worker (pid: {crashed}, slot: 0) wants to retire: it has crashed" in running.log_text()
    running.wait_log(f"Worker exiting (pid: {crashed})")


def test_the_last_hook_may_wait_while_the_cluster_stops(make_cluster):
    """A worker that is recycled waits in `worker_stopping`, and is then told that all stops."""
    running = make_cluster(service="faulty:Faulty", number_workers=1)
    running.write_module("faulty", SERVICE)
    (worker,) = running.start().worker_pids()
    (running.folder / "wait").touch()
    running.run("scale", "+1")
    reload = running.launch("reload", "--all")
    try:
        wait_until((running.folder / "waits").exists, what="the hook waits")
        running.signal(signal.SIGTERM)
        running.wait_log("Handling signal: term")
        running.wait_log(f"Retiring worker (pid: {worker}, slot: 0): stopping")
    finally:
        (running.folder / "wait").unlink()
        reload.communicate(timeout=30)
    assert running.wait() == 0
    assert "IllegalTransition" not in running.log_text()
    assert "ERROR" not in running.log_text()
