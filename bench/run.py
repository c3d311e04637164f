"""``bin/bench``: options, rounds, the report. The only place that joins scenarios, peers and the stage."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from bench import report
from bench.build import PROGRAMS, build
from bench.errors import BenchError
from bench.figures import Results
from bench.machine import describe
from bench.peers import PEERS, Peer, build_in, choose
from bench.scenarios import SCENARIOS, Effort, Variant
from bench.stage import Cores, Stage
from bench.targets import judge

__all__ = ["main"]

_QUICK = Effort(rounds=1, seconds=0.25)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments choose; 0, 1 if a peer failed (or, with ``--check``, a target was missed)."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, _leave)
    try:
        for program in PROGRAMS:
            build(program)
        return _measure(options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/bench", description="Measure rpccluster beside its peers, on loopback.")
    names = ", ".join(SCENARIOS)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"some of {names}; default: all")
    parser.add_argument("--peers", type=choose, default=choose(""), help=f"comma-separated: {', '.join(PEERS)}")
    parser.add_argument("--against", metavar="FOLDER", help="pair with the build in another checkout, round by round")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (5)")
    parser.add_argument("--seconds", type=float, help="of each run (1)")
    parser.add_argument("--quick", action="store_true", help="one short round, under a minute in all")
    parser.add_argument("--json", action="store_true", help="print JSON, each round's figures too")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a figure misses its target")
    options = parser.parse_args(arguments)
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"found the scenario {name!r}, expected some of {names}")
    default = _QUICK if options.quick else Effort()
    options.effort = Effort(options.rounds or default.rounds, options.seconds or default.seconds)
    if options.against:
        folder = os.path.abspath(options.against)
        if not os.access(f"{folder}/.venv/bin/python", os.X_OK):
            parser.error(f"found no .venv in {folder}, expected a checkout in which bin/rpccluster has been run")
        options.peers = (*options.peers, build_in(folder))
    options.scenarios = [name for name in SCENARIOS if not options.scenarios or name in options.scenarios]
    return options


def _measure(options: argparse.Namespace) -> int:
    results = Results()
    head = describe(options.peers)
    with Stage(Cores.found()) as stage:
        if stage.cores.is_shared():
            _say("found one CPU, expected two or more: server and load share it, the figures mean little")
        variants = [
            variant for name in options.scenarios for variant in SCENARIOS[name](stage, options.peers, options.effort)
        ]
        for variant in variants:
            _run_variant(variant, options.effort, results)
    print((report.as_json if options.json else report.as_text)(head, variants, results))
    has_failed = any(results.of(variant.name).failures for variant in variants)
    has_missed = options.check and not all(verdict.is_met for verdict in judge(results))
    return 1 if has_failed or has_missed else 0


def _run_variant(variant: Variant, effort: Effort, results: Results) -> None:
    """Peer after peer in each round, and back in the next, so that what disturbs the machine disturbs them alike."""
    series = results.of(variant.name)
    rounds = min(effort.rounds, variant.most_rounds)
    for number in range(rounds):
        for peer in variant.peers[:: -1 if number % 2 else 1]:
            _say(f"{variant.name}, round {number + 1} of {rounds}: {peer.name}")
            for _ in range(variant.repeats):
                if peer.name not in series.failures:
                    _take_sample(variant, peer, results)


def _take_sample(variant: Variant, peer: Peer, results: Results) -> None:
    series = results.of(variant.name)
    try:
        series.add(peer.name, variant.sample(peer))
    except BenchError as error:
        series.fail(peer.name, str(error))
        _say(f"{variant.name}: {peer.name} was not measured: {error}")


def _say(text: str) -> None:
    """Progress; the report alone goes to stdout."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
