"""What the loads in Python share with the generator in C: options, the talk on stdin and stdout, the report.

Owns no connections; the client that does passes in its two steps. Load process only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["CALLS", "Options", "Tally", "parse", "run", "say_ready", "tell"]

Calls = dict[str, tuple[tuple[Any, ...], Any]]
#: method → its params, the result expected
CALLS: Calls = {"sum": ((1, 2), 3), "echo": (("x" * 1024,), "x" * 1024)}


class Options(argparse.Namespace):
    """What to call, and how often."""

    port: int
    connections: int
    slots: int
    seconds: float
    method: str


class Tally:
    """The latencies of calls, and the check of their results."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.started_at = self.finished_at = time.monotonic()
        self.cpu_seconds = time.process_time()

    def count(self, called_at: float, result: object, expected: object) -> None:
        """One call is done. Ends the load with status 2 when its result is wrong."""
        if result != expected:
            sys.stderr.write(f"load: expected {expected!r:.50}, found {result!r:.50}\n")
            sys.stderr.flush()
            raise SystemExit(2)
        self.finished_at = time.monotonic()
        self.latencies.append(self.finished_at - called_at)


def parse() -> Options:
    """The options of the command line. From here on an error ends the load in one line instead of a traceback."""
    sys.excepthook = _complain
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--slots", type=int, default=1, help="calls in flight on each connection")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--method", choices=["sum", "echo"], default="sum")
    return parser.parse_args(namespace=Options())


def _complain(kind: type[BaseException], error: BaseException, traceback: object) -> None:
    text = " ".join(str(error).split())
    print(f"load: {kind.__name__}: {text:.300}", file=sys.stderr)


def say_ready(readline: Callable[[], str] = sys.stdin.readline) -> Tally:
    """Every connection has done its first call: wait for the word to begin, then count from here."""
    print("ready", flush=True)
    if not readline():
        raise SystemExit(0)
    return Tally()


def tell(tally: Tally, name: str) -> None:
    """Print the figures as one line of JSON, then keep the connections until stdin ends."""
    ordered = sorted(tally.latencies)
    seconds = tally.finished_at - tally.started_at
    call = {
        "calls": len(ordered),
        "seconds": seconds,
        "calls_per_second": len(ordered) / seconds,
        "p50_us": ordered[len(ordered) // 2] * 1e6,
        "p99_us": ordered[len(ordered) * 99 // 100] * 1e6,
        "max_us": ordered[-1] * 1e6,
    }
    cpu_seconds = time.process_time() - tally.cpu_seconds
    print(json.dumps({"cpu_seconds": cpu_seconds, "wall_seconds": seconds, "calls": {name: call}}), flush=True)
    sys.stdin.read()


def run(
    options: Options, call: Callable[..., object], call_all: Callable[..., Iterable[object]], calls: Calls = CALLS
) -> None:
    """The whole load of a client that blocks: ``call(method, *params)`` again and again.

    With more than one slot it is ``call_all(slots, method, *params)``, which makes so many calls together.
    """
    params, expected = calls[options.method]
    Tally().count(0, call(options.method, *params), expected)
    tally = say_ready()
    called_at = tally.started_at
    while called_at < tally.started_at + options.seconds:
        if options.slots == 1:
            tally.count(called_at, call(options.method, *params), expected)
        else:
            for result in call_all(options.slots, options.method, *params):
                tally.count(called_at, result, expected)
        called_at = time.monotonic()
    tell(tally, options.method)
