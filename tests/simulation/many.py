"""Lives through many seeds, in processes that are forked from one warm interpreter."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from .afternoon import live_through
from .coverage import Counts

__all__ = ["Lived", "live_through_many"]

CHUNK = 50  # seeds that a process is given at once
_MEMORY = "/dev/shm"


class Lived(NamedTuple):
    """Some seeds that were lived through: for how many simulated seconds, what was met, and which failed."""

    seconds: float
    counts: Counts
    digests: dict[int, bytes]  # of the stories, by seed
    faults: list[tuple[int, str]]


def live_through_many(seeds: range, jobs: int) -> Iterator[Lived]:
    """Live through ``seeds`` in ``jobs`` processes at once, in any order."""
    base = _MEMORY if os.access(_MEMORY, os.W_OK) else None  # faster than a disk
    with tempfile.TemporaryDirectory(prefix="rpccluster-simulation-", dir=base) as folder:
        tasks = [(seeds[start : start + CHUNK], folder) for start in range(0, len(seeds), CHUNK)]
        if sys.implementation.name == "cpython":
            gc.collect()
            gc.freeze()  # what was imported lives on, and no collection of a job looks at it
        with multiprocessing.get_context("fork").Pool(jobs) as pool:
            yield from pool.imap_unordered(_live_through_some, tasks)


def _live_through_some(task: tuple[range, str]) -> Lived:
    seeds, folder = task
    if sys.implementation.name == "cpython":
        gc.set_threshold(20_000)  # a life leaves little behind
    own = os.path.join(folder, str(os.getpid()))
    os.makedirs(own, exist_ok=True)
    counts: Counts = Counter()
    seconds, digests, faults = 0.0, {}, []
    for seed in seeds:
        outcome = live_through(seed, counts, own)
        seconds += outcome.seconds
        digests[seed] = hashlib.sha256("\n".join(outcome.story).encode()).digest()
        faults += [(seed, outcome.fault)] if outcome.fault else []
    return Lived(seconds, counts, digests, faults)
