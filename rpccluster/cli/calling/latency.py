"""Repeats a call, measures how long each one took, counts errors, and writes the summary.

Owns the progress bar on a terminal. `rpccluster.cli.calling.call` says what is called. The process that the user
starts.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable, Iterator
from time import perf_counter

import click

from rpccluster.errors import ConnectFailed, ProtocolError, RemoteError, RPCClusterError

__all__ = ["Latencies", "repeat"]

_LONG_SECONDS = 1.0  # past it a bar shows how far the calls are
_LOOKS_A_SECOND = 10


class Latencies:
    """The outcome of repeated calls: the seconds of each call that had a result, and the number of errors."""

    def __init__(self) -> None:
        self.seconds = array("d")
        self.errors = 0
        self.error: RPCClusterError | None = (
            None  # the one to end with: the first that was no answer of the method's, else the last
        )
        self.elapsed_seconds = 0.0

    def fail(self, error: RPCClusterError) -> None:
        """Count a call that ended in ``error``."""
        self.errors += 1
        if self.error is None or isinstance(self.error, RemoteError):
            self.error = error

    def summary(self) -> str:
        """Write a line for each figure: latencies in milliseconds, percentiles by nearest rank."""
        calls = len(self.seconds) + self.errors
        figures = {"calls": str(calls), "errors": str(self.errors), "calls/s": f"{calls / self.elapsed_seconds:.1f}"}
        if self.seconds:
            ordered = sorted(self.seconds)
            latencies = {"min": ordered[0], "mean": sum(ordered) / len(ordered)}
            latencies.update({f"p{percent}": _percentile(ordered, percent) for percent in (50, 95, 99)})
            latencies["max"] = ordered[-1]
            figures.update({name: f"{seconds * 1e3:.3f} ms" for name, seconds in latencies.items()})
        return "\n".join(f"{name:8}{figure}" for name, figure in figures.items())


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def repeat(call: Callable[[], object], times: int) -> Latencies:
    """Make ``call`` ``times`` times, one after the other, and count errors; without a server it ends early."""
    latencies = Latencies()
    begin = perf_counter()
    for _ in _with_progress(range(times)):
        called_at = perf_counter()
        try:
            call()
        except RPCClusterError as error:
            latencies.fail(error)
            if isinstance(error, (ConnectFailed, ProtocolError)):
                break
        else:
            latencies.seconds.append(perf_counter() - called_at)
    latencies.elapsed_seconds = perf_counter() - begin
    return latencies


def _with_progress(numbers: range) -> Iterator[int]:
    """Yield ``numbers``; after a second, if stderr is a terminal, show a bar for those that are left."""
    show_at = perf_counter() + _LONG_SECONDS if sys.stderr.isatty() else math.inf
    for number in numbers:
        yield number
        if perf_counter() > show_at:
            break
    left = numbers[number + 1 :]
    if left:
        with click.progressbar(left, file=sys.stderr, update_min_steps=max(1, number // _LOOKS_A_SECOND)) as bar:
            yield from bar
