"""Callers that live through killed workers: they know who served them last, note what was lost, and connect anew.

The service is `SERVICE`: it writes down each call that it runs, and answers with the number and its pid.
"""

from __future__ import annotations

import random
import selectors
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack
from callers import Callers, _Caller, dial

__all__ = ["SERVICE", "HardyCallers", "Loss"]

SERVICE = """
import os, time
from rpccluster import Service

class Notes(Service):
    def __init__(self):
        self.file = os.open(os.environ["NOTES_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def note(self, number, seconds=0.0, size=0):
        os.write(self.file, b"%d\\n" % number)
        if seconds:
            time.sleep(seconds)
        return [number, os.getpid(), "x" * size]
"""

LARGE_BYTES = 200_000
HANG_SECONDS = 15.0  # no call takes as long, whatever happens


class Loss:
    """A connection that was lost: when, and the pid of the worker that answered last on it."""

    def __init__(self, owner: int, why: object) -> None:
        self.at = time.monotonic()
        self.owner = owner
        self.why = why

    def __repr__(self) -> str:
        return f"<lost to {self.owner}: {self.why}>"


class HardyCallers(Callers):
    """As `Callers`; ``slow_share`` of the calls sleep ``slow_seconds``, ``large_share`` have large replies.

    ``lost`` are the connections that ended, ``uncertain`` the calls nobody knows of whether they ran: those under
    way there, and those answered with WorkerLost or WorkerRetired; ``errors`` counts these.
    """

    def __init__(
        self,
        address: str,
        connections: int = 10,
        depth: int = 4,
        pause: float = 0.002,
        seed: int = 1,
        slow_share: float = 0.02,
        slow_seconds: float = 0.3,
        large_share: float = 0.0,
    ) -> None:
        super().__init__(address, connections, depth, pause, seed)
        self._address = address
        self._slow = (slow_share, slow_seconds)
        self._large_share = large_share
        self._owners: dict[_Caller, int] = {}
        self._deaf_until: dict[_Caller, float] = {}
        self._choice = random.Random(seed)
        self.answered_numbers: set[int] = set()
        self.uncertain: set[int] = set()
        self.lost: list[Loss] = []
        self.errors: Counter[str] = Counter()

    @property
    def owners(self) -> Counter[int]:
        """How many connections each worker answered last."""
        return Counter(self._owners.values())

    def oldest_pending_seconds(self) -> float:
        """How long the call has been under way that has been so longest."""
        began = [at for caller in self._callers for at, _ in list(caller.pending.values())]
        return time.monotonic() - min(began, default=time.monotonic())

    def _fill(self, caller: _Caller) -> None:
        while len(caller.pending) < self._depth:
            self._number += 1
            draw = self._choice.random()
            seconds = self._slow[1] if draw < self._slow[0] else 0.0
            size = LARGE_BYTES if draw > 1.0 - self._large_share else 0
            if size:  # and read nothing for a while
                self._deaf_until[caller] = time.monotonic() + self._choice.random() * 0.5
            caller.pending[self._number] = (time.monotonic(), seconds)
            caller.unsent += msgpack.packb([0, self._number, "note", [self._number, seconds, size]])

    def _pull(self, caller: _Caller) -> None:
        if time.monotonic() >= self._deaf_until.get(caller, 0.0):
            super()._pull(caller)

    def _check(self, caller: _Caller, kind: Any, msgid: Any, error: Any, result: Any) -> None:
        began = caller.pending.pop(msgid, None)
        if kind != 1 or began is None:
            self.faults.append(f"call {msgid}: {error!r}, {result!r}: not asked for, or answered already")
        elif error is not None and str(error).startswith(("WorkerLost: ", "WorkerRetired: ")):
            self.errors[str(error).partition(":")[0]] += 1
            self.uncertain.add(msgid)
        elif error is not None or result[0] != msgid:
            self.faults.append(f"call {msgid}: {error!r}, {result!r}")
        else:
            self.answered += 1
            self.answered_numbers.add(msgid)
            if not began[1]:  # a slow one may have run elsewhere
                self._owners[caller] = result[1]
            now = time.monotonic()
            if now - began[0] > HANG_SECONDS:
                self.faults.append(f"call {msgid} took {now - began[0]:.1f} seconds")
            self.latencies.append((now, now - began[0]))

    def _lose(self, caller: _Caller, why: object) -> None:
        self.lost.append(Loss(self._owners.pop(caller, 0), why))
        self.uncertain.update(caller.pending)
        caller.pending.clear()
        caller.unsent = b""
        caller.unpacker = msgpack.Unpacker()
        self._deaf_until.pop(caller, None)
        self._selector.unregister(caller.sock)
        caller.sock.close()
        caller.sock = dial(self._address)
        caller.sock.setblocking(False)
        self._selector.register(caller.sock, selectors.EVENT_READ, caller)

    def assert_each_ran_once(self, notes: Path) -> None:
        """No call ran twice, each answered one ran, and no other but the uncertain ones."""
        ran = [int(line) for line in notes.read_text().split()]
        assert len(ran) == len(set(ran)), "a call ran twice"
        assert self.answered_numbers <= set(ran)
        assert set(ran) <= self.answered_numbers | self.uncertain, "a call ran that nobody knows of"
