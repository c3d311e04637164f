"""Task processes, forked from the tests as the master forks them; the tests are their dispatcher and their master."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

from rpccluster.child.assignment import Assignment, TaskPart
from rpccluster.child.life import live
from rpccluster.config.sections.pool import PoolOptions
from rpccluster.ipc.channel import Channel
from rpccluster.system.clock import Timer
from rpccluster.tasks.main import load
from rpccluster.tasks.wire import PICKLE, Failure, Inbound, Run, pack_run, pack_ticket, unpack_failure
from tests.child.born import made_up
from tests.plugin.born import forked

WAIT_SECONDS = 30


class Born:
    """A task process. ``socket`` and ``tickets`` are the dispatcher's ends."""

    def __init__(self, pid: int, sock: socket.socket, tickets: int, timer: Timer, channel: Channel, row: Any) -> None:
        self.pid = pid
        self.socket = sock
        self.tickets = tickets
        self.timer = timer
        self.channel = channel
        self.row = row
        self._inbound = Inbound()
        self._said: list[Any] = []
        self._number = 0
        self._status: int | None = None

    def send(self, target: str, *args: Any, ticket: int = 0, form: str = PICKLE, **options: Any) -> int:
        """Send a task. Returns its number."""
        self._number += 1
        payload = options.pop("payload", None) or pickle.dumps((args, options.pop("kwargs", {})), 5)
        if ticket:
            os.write(self.tickets, pack_ticket(ticket))
        run = Run(self._number, self._number, 1, target, form, payload, ticket=ticket, **options)
        self.socket.sendall(pack_run(run))
        return self._number

    def says(self) -> Any:
        """The next message of the process; None when it has closed its socket."""
        while not self._said:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:  # it has left something unread; what it has told comes next
                continue
            if not data:
                return None
            self._said += self._inbound.feed(data)
        return self._said.pop(0)

    def run(self, target: str, *args: Any, **options: Any) -> Any:
        """Run a task. Returns its result, or its outcome and its `Failure`."""
        number = self.send(target, *args, **options)
        done = self.says()
        assert done.number == number
        if done.outcome == "ok":
            return pickle.loads(done.payload) if options.get("form", PICKLE) == PICKLE else done.payload
        return done.outcome, unpack_failure(done.payload)

    def failure(self, target: str, *args: Any, **options: Any) -> Failure:
        """How a task fails that raises."""
        outcome, failure = self.run(target, *args, **options)
        assert outcome == "raised"
        found: Failure = failure
        return found

    def heard(self) -> Any:
        """The next message to the master."""
        wait([self.channel], WAIT_SECONDS)
        return next(message for message, _ in self.channel.receive())

    def rings(self, seconds: float) -> bool:
        """Whether the master is woken within that time."""
        return bool(wait([self.timer], seconds))

    def ended(self) -> int:
        """Its exit status, negative for a signal, when it has ended."""
        if self._status is None:
            status = os.waitpid(self.pid, 0)[1]
            self._status = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        return self._status


@contextlib.contextmanager
def born(options: PoolOptions, **changes: Any) -> Iterator[Born]:
    """A task process; it is killed at the end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(WAIT_SECONDS)
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    timer = Timer()
    part = TaskPart("thing", theirs, read_end, timer)
    fields = {"options": options, "part": part, "kind": "task", "name": "pool thing", **changes}
    with made_up(**fields) as (assignment, channel):
        pid = forked(lambda: live(_whole(assignment), load))
        theirs.close()
        child = Born(pid, ours, write_end, timer, channel, assignment.row)
        assignment.channel.close()
        try:
            yield child
        finally:
            if child._status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
                child.ended()
            for each in (ours, timer):
                each.close()
            os.close(read_end)
            os.close(write_end)


def _whole(assignment: Assignment[Any]) -> Assignment[Any]:
    return assignment
