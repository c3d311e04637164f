"""What a service does with signals: worker and other calls go on, and it learns what is not its own."""

from __future__ import annotations

import socket

from rpccluster.address import parse_address
from rpccluster.protocol.codec import make_packer
from rpccluster.testing import RunningCluster, wait_until

SIGPIPE_SERVICE = """
import os, signal, time
from rpccluster import Service

class Default(Service):
    def worker_started(self, worker):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    def pid(self):
        return os.getpid()

    def wait(self, seconds):
        time.sleep(seconds)
"""


def send_two_and_hang_up(running: RunningCluster, *seconds: float) -> None:
    """Two calls that end one after another, and a peer that is gone before."""
    pack = make_packer().pack
    address = parse_address(running.address)
    with socket.create_connection((address.host, address.port)) as sock:
        sock.sendall(b"".join(pack([0, number, "wait", [each]]) for number, each in enumerate(seconds)))


def test_sigpipe_at_its_default_harms_nobody(make_cluster):
    """A peer that sends two calls and hangs up is a dropped reply, not the end of the worker."""
    running = make_cluster(service="default:Default", number_workers=1)
    running.write_module("default", SIGPIPE_SERVICE)
    (worker,) = running.start().worker_pids()
    with running.client_of(worker) as client:
        for _ in range(5):
            send_two_and_hang_up(running, 0.01, 0.05)
        wait_until(lambda: running.worker(worker).get("dropped_replies"), what="a reply was dropped")
        assert client.call("pid") == worker
