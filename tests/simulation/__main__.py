"""Live through many seeds: ``bin/simulate --seeds A:B --jobs N``; docs/simulation.md says how to read a story."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections import Counter
from typing import Any

from .afternoon import live_through
from .coverage import never_met, report
from .faults import find_all
from .many import live_through_many
from .shrink import shrunk

EPILOG = "bin/simulate --python PATH ... does it on another interpreter, in an environment of its own."


def main() -> int:
    """Run the command. Returns its exit code: 1 if a seed has met a fault, or a row was not met that must be."""
    options = _options()
    if options.faults:
        return 1 if find_all(options.seeds, options.jobs) else 0
    if options.seed is not None:
        return _tell_one(options.seed, is_whole=not options.shrink)
    first, last = (int(text) for text in options.seeds.split(":"))
    counts: Counter[tuple[str, str]] = Counter()
    began, seconds = time.monotonic(), 0.0
    digests: dict[int, bytes] = {}
    faults: list[tuple[int, str]] = []
    for lived in live_through_many(range(first, last), options.jobs):
        seconds += lived.seconds
        digests.update(lived.digests)
        counts.update(lived.counts)
        faults += lived.faults
        for seed, fault in lived.faults:
            print(f"\rseed {seed}: {fault}", file=sys.stderr)
        _show_progress(len(digests), last - first, seconds, time.monotonic() - began, len(faults))
        if len(faults) >= options.most:
            break
    print(file=sys.stderr)
    if options.report:
        print("\n".join(report(counts)))
    if options.digest:
        print(hashlib.sha256(b"".join(digests[seed] for seed in sorted(digests))).hexdigest())
    unmet = never_met(counts) if options.complete else []
    for kind, what in unmet:
        print(f"never met: {kind}: {what}")
    for seed, fault in sorted(faults):
        print(f"seed {seed}: {fault}")
    if faults and not options.quiet:
        _tell_one(min(faults)[0], is_whole=False)
    return 1 if faults or unmet else 0


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="bin/simulate", description=__doc__, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("--seeds", metavar="A:B", default="1:1001", help="the seeds from A on, up to B and without it")
    parser.add_argument("--seed", metavar="SEED", type=int, help="this seed alone, and its whole story")
    parser.add_argument("--shrink", action="store_true", help="tell the story of the smallest run like that of --seed")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="processes that run at once")
    parser.add_argument("--report", action="store_true", help="tell how often each event, phase and message was met")
    parser.add_argument("--complete", action="store_true", help="fail unless everything in the tables was met")
    parser.add_argument("--digest", action="store_true", help="print a number that only the same stories have")
    parser.add_argument("--most", metavar="N", type=int, default=1, help="end after so many faults (default: 1)")
    parser.add_argument("--quiet", action="store_true", help="name the faults, and tell no story")
    parser.add_argument("--faults", action="store_true", help="put known faults back into a copy, and find each")
    return parser.parse_args()


def _show_progress(done: int, total: int, lived: float, passed: float, faults: int) -> None:
    speed = f"{done / passed:.0f} seeds a second, {lived / passed / 60:.0f} simulated hours a minute"
    told = f"{done} of {total} seeds, {lived / 3600:.1f} simulated hours in {passed:.0f} s ({speed}), {faults} faults"
    print(f"\r{told}", end="", file=sys.stderr, flush=True)


def _tell_one(seed: int, *, is_whole: bool) -> int:
    outcome = live_through(seed)
    if outcome.fault and not is_whole:
        outcome = shrunk(outcome)
    print("\n".join(outcome.story))
    print(f"seed {seed}: {outcome.fault or 'no fault'}, after {outcome.seconds:.0f} simulated seconds")
    return 1 if outcome.fault else 0


if __name__ == "__main__":
    sys.exit(main())
