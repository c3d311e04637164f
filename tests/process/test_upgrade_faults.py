"""Upgrades that go wrong half-way, or are disturbed: somebody serves at any time, and no connection is lost."""

from __future__ import annotations

import signal

from rpccluster.testing import RunningCluster, is_alive, wait_until

# Ends the new master in the moment in which it has said that its workers serve.
DIES_AFTER_SERVING = """
import os, signal, socket

send = socket.socket.sendmsg

def sendmsg(self, data, *rest):
    sent = send(self, data, *rest)
    if bytes(data[0][:2]) in (b"\\x92\\x06", b"\\x93\\x06"):
        os.kill(os.getpid(), signal.SIGKILL)
    return sent

socket.socket.sendmsg = sendmsg
"""


def test_a_new_master_that_dies_before_it_has_taken_over_changes_nothing(cluster):
    """The commit needs both: the old master serves on, old connections and new ones."""
    running: RunningCluster = cluster()
    before = running.status()
    with running.client() as client:
        assert client.call("sum", 1, 2) == 3
        running.write_module("sitecustomize", DIES_AFTER_SERVING)
        running.signal(signal.SIGUSR2)
        running.wait_log("Upgrade failed, nothing has changed")
        (running.folder / "sitecustomize.py").unlink()
        after = running.wait_ready()
        assert after["master"]["pid"] == before["master"]["pid"]
        assert [worker["pid"] for worker in after["workers"]] == [worker["pid"] for worker in before["workers"]]
        assert (running.folder / "cluster.pid").read_text() == f"{before['master']['pid']}\n"
        assert client.call("sum", 1, 2) == 3
        with running.client() as another:
            assert another.call("sum", 1, 2) == 3
        assert running.run("upgrade").returncode == 0
        wait_until(lambda: not is_alive(before["master"]["pid"]))
        assert client.call("sum", 1, 2) == 3
