"""Snapshots of a cluster that there is not."""

from __future__ import annotations

from typing import Any

from rpccluster.cli.top.snapshots import MethodCounts, Snapshot

BOUNDS = (0.001, 0.002, 0.004)


def worker(slot: int, calls: int = 0, **values: Any) -> dict[str, Any]:
    """A worker of ``status``; its pid is 100 + slot."""
    told = {"slot": slot, "pid": 100 + slot, "state": "ready", "rss_bytes": 48 << 20, "connections": 2}
    return {**told, "active_calls": 1, "calls": calls, "errors": 0, **values}


def group(name: str, kind: str, **values: Any) -> dict[str, Any]:
    """A group of ``status`` with one process."""
    process = {"pid": 200, "rss_bytes": 1 << 20, "uptime_seconds": 61.0, "restarts": 1}
    told = {"name": name, "kind": kind, "state": "ready", "reason": "", "description": "", "processes": [process]}
    return {**told, **values}


def snapshot(at: float, *workers: dict[str, Any], groups: Any = (), **values: Any) -> Snapshot:
    """What was told ``at`` a moment."""
    master = {"pid": 99, "state": "running", "version": "1.0", "generation": 1, "uptime_seconds": at}
    master |= {"number_workers": len(workers), "settings": {"version": 3}, "leadership": None}
    status = {"master": master, "workers": list(workers), "groups": list(groups)}
    return Snapshot(at, status, **values)


def counts(calls: int, failed: int, *buckets: int) -> MethodCounts:
    """What was counted of a method, in four buckets."""
    return MethodCounts(calls, failed, buckets)
