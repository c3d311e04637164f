"""The families of metrics that come from what the master tells, not from counters in memory. Pure.

A process that has ended has no sample here: each is made of the present ``status``, by group and state, and no label
tells a process. Runs in the page's process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rpccluster.metrics.families import Family, Labels, Sample

__all__ = ["families_of"]

STATES = ("waiting", "booting", "ready", "retiring", "stopped", "finished")
_OF_POOLS = {"processes": "Processes", "running": "Tasks that run", "waiting": "Tasks that wait for a process"}
_OF_QUEUES = ("ready", "leased", "delayed", "dead")

Samples = Iterable[tuple[Labels, float]]


def families_of(status: Mapping[str, Any], pools: Iterable[Mapping[str, Any]] = (), age: float = 0.0) -> list[Family]:
    """Return the families of ``status``, which is ``age`` seconds old, and of the ``pools`` of the dispatcher."""
    groups = status["groups"]
    found = [
        _gauge("info", "The version that runs, as a label.", [((("version", status["master"]["version"]),), 1)]),
        _gauge("status_age_seconds", "Time since the master has told of its processes.", [((), round(age, 3))]),
        _gauge("processes", "Processes by group and state.", _states(groups)),
        _gauge("processes_wanted", "Processes that each group shall have.", _by_group(groups, _wanted)),
        _gauge("resident_memory_bytes", "Resident memory of all processes of a group.", _by_group(groups, _resident)),
        *(_gauge(f"pool_{key}", f"{told} of a pool.", _of_pools(pools, key)) for key, told in _OF_POOLS.items()),
        _gauge("queue_items", "Items of a queue by state.", _of_queues(groups)),
    ]
    return [family for family in found if family.samples]


def _gauge(name: str, told: str, samples: Samples) -> Family:
    return Family(f"rpccluster_{name}", "gauge", told, [Sample("", labels, value) for labels, value in samples])


def _states(groups: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Labels, float]]:
    for group in groups:
        states = [process["state"] for process in group["processes"]]
        for state in STATES:
            yield (("group", group["name"]), ("state", state)), states.count(state)


def _by_group(groups: Iterable[Mapping[str, Any]], value: Any) -> Iterator[tuple[Labels, float]]:
    for group in groups:
        yield (("group", group["name"]),), value(group)


def _wanted(group: Mapping[str, Any]) -> int:
    return int(group["wanted"])


def _resident(group: Mapping[str, Any]) -> int:
    return sum(process["rss_bytes"] for process in group["processes"])


def _of_pools(pools: Iterable[Mapping[str, Any]], key: str) -> Iterator[tuple[Labels, float]]:
    for pool in pools:
        yield (("pool", pool["name"]),), pool[key]


def _of_queues(groups: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Labels, float]]:
    for queue in (queue for group in groups for queue in group.get("queues") or ()):
        for state in (state for state in _OF_QUEUES if state in queue):
            yield (("queue", queue["name"]), ("state", state)), queue[state]
