"""The method of the control socket that tells what the workers have counted of each method. Runs in the master."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rpccluster.master.cluster import Cluster
from rpccluster.master.control.group_operations import expect
from rpccluster.master.control.server import Answer, Method
from rpccluster.master.pieces import Pieces, Work
from rpccluster.metrics.layout import BOUNDS_SECONDS
from rpccluster.metrics.totals import Calls, Reader, Totals

__all__ = ["MetricsOperations"]


class MetricsOperations:
    """``metrics.methods``."""

    def __init__(self, cluster: Cluster, pieces: Pieces) -> None:
        self._cluster = cluster
        self._pieces = pieces
        self._reader: Reader | None = None

    def readings(self) -> Mapping[str, Method]:
        """Return the method by its name; it changes nothing."""
        return {"metrics.methods": self._methods}

    def _methods(self, params: list[Any], answer: Answer) -> None:
        """Tell of each method how many calls have ended, and failed, and how many in each bucket of times."""
        expect(params, 0)
        counts = self._cluster.counts
        if counts.of(self._cluster.configuration) < 0:
            answer("RuntimeError: rates and times need a section [metrics] or [web]", None)
            return
        self._reader = self._reader or Reader(counts.descriptor)
        self._pieces.begin(_summed(self._reader), answer)


def _summed(reader: Reader) -> Work[dict[str, Any]]:
    totals = Totals()
    yield from reader.fill(totals)
    methods = {name: _told(calls) for name, calls in totals.methods().items()}
    return {"bounds": BOUNDS_SECONDS, "methods": methods}


def _told(calls: Calls) -> list[Any]:
    ended = sum(calls.outcomes.values())
    return [ended, ended - calls.outcomes["ok"], list(calls.durations.buckets)]
