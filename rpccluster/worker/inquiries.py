"""Answers what an operator asks about this worker: the calls that run and since when, whose connections it has, stacks.

A call does not note when it begins, since each one would pay for that. The heartbeat looks at the calls that hold a
greenlet, so they are known to within a beat; those that are answered later note it themselves. Runs in the worker.
"""

from __future__ import annotations

import heapq
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice
from types import FrameType
from typing import Any, Callable, NamedTuple, Protocol

from rpccluster.ipc.messages import Findings, Inquire
from rpccluster.log import escaped
from rpccluster.worker.current import Call, Runner
from rpccluster.worker.hot import Engine
from rpccluster.worker.native.held_up import Place, stack_of
from rpccluster.worker.native.primitives import thread_id

__all__ = ["Inquiries"]

MOST_STACKS = 40  # of greenlets, and of threads
MOST_FRAMES = 30  # of a stack
MOST_LETTERS = 200  # of a name, a peer or a line


class Peer(Protocol):
    """A connection, as this module sees it."""

    @property
    def outbox(self) -> Any:
        """What has its ``peer``."""


class _Running(NamedTuple):
    """A call that runs; ``begun_at`` in monotonic seconds."""

    begun_at: float
    method: str
    peer: str


class Inquiries:
    """The inquiries of the master to one worker."""

    def __init__(
        self,
        engine: Engine,
        connections: Collection[Peer],
        say: Callable[[Findings], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``connections`` are the open ones. ``say`` tells the master; ``clock`` returns monotonic seconds."""
        self._engine = engine
        self._connections = connections
        self._say = say
        self._clock = clock
        self._seen_at: dict[tuple[int, Any], float] = {}  # calls that hold a greenlet, by what tells them apart

    def look(self) -> None:
        """Note which calls hold a greenlet. Called at each heartbeat."""
        now, before = self._clock(), self._seen_at
        keys = [_key(call) for call in self._engine.held()]
        self._seen_at = {key: before.get(key, now) for key in keys}

    def hear(self, inquiry: Inquire) -> None:
        """Answer ``inquiry``."""
        try:
            found = _ANSWERS[inquiry.what](self, *inquiry.params)
        except (KeyError, TypeError) as error:  # of a master of another version
            self._say(Findings(inquiry.number, None, f"RuntimeError: cannot tell {inquiry.what}: {error}"))
        else:
            self._say(Findings(inquiry.number, found))

    def calls(self, most: int) -> dict[str, Any]:
        """Tell the ``most`` calls that run for longest, and the ``most`` hosts with most connections."""
        now, running = self._clock(), list(self._running())
        first = heapq.nsmallest(most, running)
        hosts = Counter(_host(connection.outbox.peer) for connection in self._connections)
        return {
            "calls": [[_cut(method), _cut(peer), round(now - begun_at, 3)] for begun_at, method, peer in first],
            "number_calls": len(running),
            "hosts": [[_cut(host), number] for host, number in hosts.most_common(most)],
            "number_hosts": len(hosts),
        }

    def _running(self) -> Iterator[_Running]:
        now = self._clock()
        for call in self._engine.held():
            yield _Running(self._seen_at.get(_key(call), now), str(call.message[-2]), call.sender.peer)
        for begun_at, method, sender in self._engine.parked_since():
            yield _Running(begun_at, method, sender.peer)

    def stack(self) -> str:
        """Tell where each call is that holds a greenlet, and where each native thread is."""
        lines: list[str] = []
        runners = self._engine.busy_runners()
        for runner in islice(runners, MOST_STACKS):
            lines += [f"{_named(runner)}:", *_lines(runner.gr_frame), ""]
        if len(runners) > MOST_STACKS:
            lines += [f"(and {len(runners) - MOST_STACKS} calls more)", ""]
        frames = sys._current_frames()
        own = thread_id()
        for number, frame in islice(frames.items(), MOST_STACKS):
            if number != own:  # the hub's, which is here
                lines += [f"thread {number}{_method_of(frame)}:", *_lines(frame), ""]
        return "\n".join(lines[:-1]) or "no call holds a greenlet, and there is no other thread"


_ANSWERS: dict[str, Callable[..., Any]] = {"calls": Inquiries.calls, "stack": Inquiries.stack}


def _key(call: Call) -> tuple[int, Any]:
    """Return what tells a call apart that runs now. It keeps no param of the call alive."""
    return id(call.message), call.message[1]


def _named(runner: Runner) -> str:
    return f"method {_cut(str(runner.call[-2]))} for {_cut(runner.outbox.peer)}"


def _method_of(frame: FrameType) -> str:
    method = stack_of(frame).method
    return f", method {_cut(method)}" if method else ""


def _lines(frame: FrameType | None) -> list[str]:
    """Return a line for each frame, the innermost first."""
    lines: list[str] = []
    while frame is not None and len(lines) < MOST_FRAMES:
        code = frame.f_code
        lines.append(f"  {Place(code.co_filename, frame.f_lineno or 0, code.co_name)}"[: 2 * MOST_LETTERS])
        frame = frame.f_back
    return [*lines, "  …"] if frame is not None else lines


def _host(peer: str) -> str:
    """Return the host of a peer, without its port."""
    host, colon, port = peer.rpartition(":")
    return host if colon and port.isdigit() else peer


def _cut(text: str) -> str:
    return escaped(text)[:MOST_LETTERS]
