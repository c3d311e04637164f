"""A worker is killed before each of its system calls of a handover, as donor or as adopter (strace(1))."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from strace import injected
from test_crash_points import Session, noted

from rpccluster.testing import RunningCluster, wait_until
from rpccluster.worker.hot.choice import why_not_compiled

pytestmark = [
    pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace(1) here"),
    pytest.mark.skipif(bool(why_not_compiled()), reason="the compiled engine alone notes what is needed"),
]

__all__ = ["noted"]

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
WORKERS = 2
#: What a worker calls while a connection moves.
CALLS = ("sendmsg", "recvmsg", "epoll_ctl", "close", "sendto", "recvfrom", "epoll_wait")
FEW = (("sendmsg", 1), ("sendmsg", 2), ("recvmsg", 1), ("epoll_ctl", 1), ("close", 1))


def pid_of(running: RunningCluster, slot: int) -> int:
    """The worker of a slot; it waits until both are ready and no other is left."""
    workers: list[Any] = []

    def both() -> bool:
        workers[:] = sorted(running.status()["workers"], key=lambda each: int(each["slot"]))
        return [(each["slot"], each["state"]) for each in workers] == [(0, "ready"), (1, "ready")]

    wait_until(both)
    pid: int = workers[slot]["pid"]
    return pid


def try_point(running: RunningCluster, slot: int, name: str, nth: int, base: int, notes: Path) -> bool:
    """Have worker 1 give its connections to worker 0, and kill one meanwhile. Returns whether it came to that."""
    victim = pid_of(running, slot)
    sessions = {base + 10 * place: Session(running, "unix" if place % 2 else "tcp") for place in range(6)}
    with contextlib.ExitStack() as stack:
        for number, session in sessions.items():
            stack.enter_context(session.sock)
            session.sock.sendall(session.call(number))
            session.wait(number)
        with injected(victim, f"?{name}", f"signal=SIGKILL:when={nth}", notes):
            for number, session in sessions.items():
                last = session.call(number + 3)
                calls = session.call(number + 1, 0.05) + session.call(number + 2, 0.0, 300_000)
                session.sock.sendall(calls + last[:7])
            running.signal(signal.SIGTTOU)
            for number, session in sessions.items():
                session.wait(number + 1)
                session.sock.sendall(session.call(number + 3)[7:])
            for number, session in sessions.items():
                session.wait(number + 2, number + 3)
            wait_until(lambda: len(running.status()["workers"]) == 1)
        for session in sessions.values():
            check(session)
    running.signal(signal.SIGTTIN)
    return "killed by SIGKILL" in notes.read_text()


def check(session: Session) -> None:
    """Each call was answered once, by its own result or by WorkerLost."""
    assert session.replies.keys() == session.asked
    assert set(session.replies.values()) == {1}
    assert all(text.startswith("WorkerLost: ") for text in session.errors.values())
    for number, (told, _, filling, _) in session.results.items():
        assert told == number
        assert len(filling) == (300_000 if number % 10 == 2 else 0)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("slot", [1, 0], ids=["donor", "adopter"])
def test_a_moving_connection_outlives_both_workers(noted: RunningCluster, tmp_path: Path, slot: int) -> None:
    """No connection is lost, each call is answered once, and runs once at most."""
    base, killed = 1000, 0
    points: Any = FEW
    if FULL_SCALE:
        points = ((name, nth) for name in CALLS for nth in range(1, 41))
    done: set[str] = set()
    for name, nth in points:
        if name in done:
            continue
        if try_point(noted, slot, name, nth, base, tmp_path / f"strace-{base}"):
            killed += 1
        elif FULL_SCALE:
            done.add(name)
            print(f"{name}: {nth - 1} points")
        base += 100
    assert killed
    ran = [int(line) for line in (tmp_path / "notes").read_text().split()]
    assert len(ran) == len(set(ran)), "a call ran twice"


def test_connections_of_a_dead_worker_move_before_its_successor_starts(noted: RunningCluster, tmp_path: Path) -> None:
    """Their callers wait, and a start takes its time."""
    pid_of(noted, 0)
    session = Session(noted)
    with session.sock:
        session.sock.sendall(session.call(1))
        session.wait(1)
        notes = tmp_path / "strace"
        with injected(noted.master_pid, "?sendmsg,?fork,?vfork,?clone,?clone3", "delay_exit=1", notes):
            os.kill(session.results[1][1], signal.SIGKILL)
            session.sock.sendall(session.call(2))
            session.wait(2)
            pid_of(noted, 0)
    calls = notes.read_text().splitlines()
    moved = next(at for at, call in enumerate(calls) if "SCM_RIGHTS" in call)
    started = next(at for at, call in enumerate(calls) if call.startswith(("fork", "vfork", "clone")))
    assert moved < started, calls
