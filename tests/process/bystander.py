"""A well-behaved client beside bad ones, and what memory the workers have meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import psutil
from lines import Line, lines_to

from rpccluster.testing import wait_until

__all__ = ["MIB", "GoodClient", "Memory"]

MIB = 1 << 20
PATIENCE_SECONDS = 60.0
SETTLED_SECONDS = 6.5  # without a change: what is freed goes back to the kernel after five
LOOK_SECONDS = 0.005


class GoodClient(threading.Thread):
    """Calls on four connections all the time, notes how long each call took, and checks each result."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._stopping = threading.Event()
        self._latencies: list[float] = []
        self.calls = 0
        self.fault: BaseException | None = None

    def __enter__(self) -> GoodClient:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.join(PATIENCE_SECONDS)

    def run(self) -> None:
        """Until it is stopped, or something goes wrong."""
        try:
            with lines_to(self._address, 4) as lines:
                while not self._stopping.wait(LOOK_SECONDS):
                    for line in lines:
                        self._call(line)
        except BaseException as error:
            self.fault = error

    def _call(self, line: Line) -> None:
        seconds, result = line.timed_call("echo", self.calls)
        assert result == self.calls
        line.replies.clear()
        self._latencies.append(seconds)
        self.calls += 1

    def await_calls(self, count: int) -> None:
        """Wait for so many calls since `figures` were asked last. Raises AssertionError if it is not served."""
        wait_until(lambda: len(self._latencies) > count or self.fault, PATIENCE_SECONDS, f"{count} calls are served")

    def figures(self) -> str:
        """The latencies since this was asked last. Raises what went wrong."""
        if self.fault is not None:
            raise self.fault
        taken, self._latencies = sorted(self._latencies), []
        p50, p99 = (taken[len(taken) * part // 100] * 1e3 for part in (50, 99))
        return f"{len(taken)} calls: p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {taken[-1] * 1e3:.0f} ms"


class Memory:
    """The resident memory of processes, in bytes."""

    def __init__(self, pids: list[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self.highest = 0  # of all together, while it was watched

    def now(self) -> list[int]:
        """What each has."""
        return [process.memory_info().rss for process in self._processes]

    def settled(self) -> list[int]:
        """What each has once that changes no more."""
        seen, since = self.now(), time.monotonic()
        while time.monotonic() - since < SETTLED_SECONDS:
            time.sleep(0.1)
            now = self.now()
            if max(abs(one - other) for one, other in zip(now, seen)) > MIB // 2:
                seen, since = now, time.monotonic()
        return seen

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Keep an eye on it."""
        over = threading.Event()
        self.highest = sum(self.now())
        thread = threading.Thread(target=self._watch, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(PATIENCE_SECONDS)

    def _watch(self, over: threading.Event) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not over.wait(LOOK_SECONDS):
                self.highest = max(self.highest, sum(self.now()))
