"""A worker is killed before each of its system calls in turn, in the middle of a scripted session (strace(1))."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from strace import injected

from rpccluster.testing import RunningCluster, is_alive, wait_until
from rpccluster.worker.hot.choice import why_not_compiled

pytestmark = [
    pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace(1) here"),
    pytest.mark.skipif(bool(why_not_compiled()), reason="the compiled engine alone notes what is needed"),
]

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
WORKERS = 4
LARGE = 1 << 20
SERVICE = """
import os, time
from rpccluster import Service

class Notes(Service):
    def __init__(self):
        self.file = os.open(os.environ["NOTES_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def note(self, number, seconds=0.0, size=0, data=b""):
        os.write(self.file, b"%d\\n" % number)
        if seconds:
            time.sleep(seconds)
        return [number, os.getpid(), "x" * size, len(data)]
"""
#: What a worker calls in the session; the name of each is told to strace with a ``?``, since kernels differ.
CALLS = ("recvfrom", "sendto", "epoll_wait", "epoll_pwait2", "epoll_ctl", "write", "read", "recvmsg", "sendmsg")
FEW = {
    "tcp": (
        ("recvfrom", 1),
        ("recvfrom", 4),
        ("sendto", 1),
        ("sendto", 3),
        ("sendto", 6),
        ("epoll_wait", 5),
        ("write", 4),
    ),
    "unix": (("recvfrom", 2), ("sendmmsg", 1), ("sendmmsg", 3), ("sendmmsg", 6), ("write", 4)),
}


class Session:
    """One connection with numbered calls, over TCP or at the Unix socket."""

    def __init__(self, running: RunningCluster, kind: str = "tcp") -> None:
        tcp, unix = [each.partition("//")[2] for each in running.status()["master"]["listeners"]]
        host, _, port = tcp.rpartition(":")
        self.sock = socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        self.sock.settimeout(60)
        self.sock.connect((host, int(port)) if kind == "tcp" else unix)
        self.asked: set[int] = set()
        self.replies: Counter[int] = Counter()
        self.results: dict[int, Any] = {}
        self.errors: dict[int, str] = {}
        self._unpacker = msgpack.Unpacker(max_buffer_size=1 << 30)

    def call(self, number: int, *more: Any) -> bytes:
        self.asked.add(number)
        packed: bytes = msgpack.packb([0, number, "note", [number, *more]])
        return packed

    def wait(self, *numbers: int) -> None:
        """Read until these calls are answered."""
        while not set(numbers) <= self.replies.keys():
            data = self.sock.recv(65_536)
            assert data, "the connection has ended"
            self._unpacker.feed(data)
            for kind, msgid, error, result in self._unpacker:
                assert kind == 1
                self.replies[msgid] += 1
                if error is None:
                    self.results[msgid] = result
                else:
                    self.errors[msgid] = error

    def play(self, base: int) -> None:
        """Play the script; its calls have numbers from ``base`` on."""
        send = self.sock.sendall
        third = self.call(base + 3)
        send(self.call(base + 1) + self.call(base + 2) + third[:5])
        time.sleep(0.005)
        send(third[5:])
        self.wait(base + 1, base + 2, base + 3)
        send(self.call(base + 4, 0.03) + self.call(base + 5) + msgpack.packb([2, "note", [base + 99]]))
        self.wait(base + 5)
        large = self.call(base + 6, 0.0, 0, b"y" * LARGE) + self.call(base + 7, 0.0, LARGE) + self.call(base + 8)
        sender = threading.Thread(target=self._send_slowly, args=[large])
        sender.start()
        sender.join()
        time.sleep(0.01)
        self.wait(base + 4, base + 6, base + 7, base + 8)

    def _send_slowly(self, data: bytes) -> None:
        for at in range(0, len(data), 300_000):
            self.sock.sendall(data[at : at + 300_000])
            time.sleep(0.002)


def try_point(running: RunningCluster, kind: str, name: str, nth: int, base: int, notes: Path) -> bool:
    """Play the script with a kill at one point. Returns whether it came to that."""
    wait_until(lambda: sum(each["state"] == "ready" for each in running.status()["workers"]) > 1)
    session = Session(running, kind)
    with session.sock:
        session.sock.sendall(session.call(base))
        session.wait(base)
        owner = session.results[base][1]
        with injected(owner, f"?{name}", f"signal=SIGKILL:when={nth}", notes):
            session.play(base)
        wait_until(lambda: len(session.replies) == len(session.asked))
        assert set(session.replies.values()) == {1}
        assert all(text.startswith("WorkerLost: ") for text in session.errors.values())
        for number, (told, _, filling, length) in session.results.items():
            assert told == number
            assert len(filling) == (LARGE if number == base + 7 else 0)
            assert length == (LARGE if number == base + 6 else 0)
    return not is_alive(owner)


@pytest.fixture
def noted(
    make_cluster: Callable[..., RunningCluster],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> RunningCluster:
    """As many workers as the module's `WORKERS` says, which note each call that they run."""
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))
    running = make_cluster(
        service="noted:Notes",
        bind=f"tcp://127.0.0.1:0, unix://{tmp_path}/s",
        crash_safe=True,
        number_workers=request.module.WORKERS,
        rebalance=False,
        restart_delay_max=0,
    )
    running.write_module("noted", SERVICE)
    return running.start()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_session_outlives_its_worker_whenever_that_is_killed(
    noted: RunningCluster, tmp_path: Path, kind: str
) -> None:
    """Each call is answered once, by its result or by WorkerLost, and runs once at most."""
    base, killed, answered = 1000, 0, set()
    points: Any = FEW[kind]
    if FULL_SCALE:
        points = ((name, nth) for name in (*CALLS, "sendmmsg") for nth in range(1, 100))
    done: set[str] = set()
    for name, nth in points:
        if name in done:
            continue
        if try_point(noted, kind, name, nth, base, tmp_path / f"strace-{base}"):
            killed += 1
        elif FULL_SCALE:
            done.add(name)
            print(f"{name}: {nth - 1} points")
        base += 100
    ran = [int(line) for line in (tmp_path / "notes").read_text().split()]
    assert len(ran) == len(set(ran)), "a call ran twice"
    assert killed >= len(FEW[kind]) - 2
    assert answered <= set(ran)
