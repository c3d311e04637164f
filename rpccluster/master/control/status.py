"""Makes the contract's ``status`` from the master's data. Runs in the master.

A kind adds the fields of its own processes; everything else is the same for all kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.master.children.child import Child, ChildState
from rpccluster.master.children.group import Group
from rpccluster.master.cluster import Cluster
from rpccluster.master.handover.broker import Broker
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.rpc import RPC, RPCWorker
from rpccluster.master.resources.listeners import Listener
from rpccluster.master.resources.service_listeners import LEADERSHIP
from rpccluster.version import __version__

__all__ = ["Status", "of_group"]


class Status:
    """The ``status`` of one master."""

    def __init__(self, cluster: Cluster, workers: Group, groups: Groups, rpc: RPC, broker: Broker) -> None:
        """``rpc`` is the kind of ``workers``; a cluster without a service has none, and no such group among all."""
        self._cluster = cluster
        self._workers = workers
        self._groups = groups
        self._rpc = rpc
        self._broker = broker

    def make(self, pid: int, now: float, warden: int = 0) -> dict[str, Any]:
        """Make the ``status`` of the master ``pid`` at ``now`` (monotonic seconds); ``warden`` is its warden's pid."""
        own = {child: self._rpc.status(child, now) for child in self._workers.children}  # each row is read once
        return {
            "master": {**self._master(pid, now), "warden_pid": warden},
            "workers": [self._worker(child, own[child], now) for child in _in_order(self._workers)],
            "groups": [self._group(group, own, now) for group in self._groups.all],
        }

    def _master(self, pid: int, now: float) -> dict[str, Any]:
        cluster, workers = self._cluster, self._workers
        return {
            "pid": pid,
            "state": cluster.phase.value,
            "uptime_seconds": round(now - cluster.started_at, 3),
            "version": __version__,
            "generation": cluster.generation,
            "number_workers": workers.wanted,
            "settings": {"version": cluster.settings_version},
            "engine": self._rpc.engine,
            "in_transit": self._broker.in_transit,
            **asdict(self._broker.figures),
            "leadership": cluster.lead.shown() if LEADERSHIP in cluster.configuration.others else None,
            "listeners": _addresses(cluster.listeners),
            "totals": self._rpc.totals.status(child.row for child in workers.children),
        }

    def _group(self, group: Group, own: Mapping[Child, dict[str, Any]], now: float) -> dict[str, Any]:
        cluster = self._cluster
        listeners = cluster.listeners if group is self._workers else cluster.plugin_listeners.get(group.name, [])
        kind = self._groups.kinds[group.kind.name]
        fields = own if group is self._workers else {child: kind.status(child, now) for child in group.children}
        return of_group(group, fields, _addresses(listeners), now, cluster.settings_version)

    def _worker(self, child: Child, own: dict[str, Any], now: float) -> dict[str, Any]:
        return {
            "slot": child.slot,
            "pid": child.pid,
            "generation": child.generation,
            "state": child.state.value,
            "cpus": child.cpus,
            "rss_bytes": child.row[CommonCell.RSS_BYTES],
            "uptime_seconds": round(now - child.booted_at, 3),
            **own,
            **self._uncovered(child),
            "retire_reason": child.retire_reason if child.state is ChildState.RETIRING else "",
        }

    def _uncovered(self, child: Child) -> dict[str, int]:
        """How many connections would end with a worker, where that is asked of a cluster."""
        assert isinstance(child, RPCWorker)
        return {"uncovered": self._broker.uncovered(child)} if self._cluster.options.crash_safe else {}


def _addresses(listeners: Iterable[Listener]) -> list[str]:
    return [str(listener.actual) for listener in listeners]


def of_group(
    group: Group, own: Mapping[Child, dict[str, Any]], listeners: list[str], now: float, version: int = 0
) -> dict[str, Any]:
    """What ``status`` tells of one group, which has these ``listeners``; ``version`` of the settings is in force.

    ``own`` has the fields that the kind of each child adds.
    """
    processes = [_process(group, child, own[child], now, version) for child in _in_order(group)]
    held = {child.slot for child in group.children}
    processes += [_vacancy(group, slot, now) for slot in range(group.wanted) if slot not in held]
    processes.sort(key=lambda process: process["slot"])
    first = _first_unready(group, processes)
    return {
        "name": group.name,
        "kind": group.kind.name,
        "description": group.description,
        "state": first["state"] if first else "ready",
        "wanted": group.wanted,
        "reason": first.get("reason", "") if first else "",
        "listeners": listeners,
        "processes": processes,
    }


def _process(group: Group, child: Child, own: dict[str, Any], now: float, version: int) -> dict[str, Any]:
    return {
        "slot": child.slot,
        "pid": child.pid,
        "state": child.state.value,
        "generation": child.generation,
        "uptime_seconds": round(now - child.booted_at, 3),
        "rss_bytes": child.row[CommonCell.RSS_BYTES],
        **_settings(child, version),
        **_past(group, child.slot, now),
        **own,
    }


def _settings(child: Child, version: int) -> dict[str, Any]:
    """Tell which version of the settings ``child`` has, when ``version`` is in force."""
    if not child.reads_settings:
        return {"settings_version": None, "settings_state": None}
    own = child.row[CommonCell.SETTINGS_VERSION]
    state = f"refused: {child.refusal}" if child.refusal else "in step" if own >= version else "behind"
    return {"settings_version": own, "settings_state": state}


def _in_order(group: Group) -> list[Child]:
    return sorted(group.children, key=lambda child: (child.slot, child.booted_at))


def _first_unready(group: Group, processes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the row of the first wanted slot without a ready process; None if all are ready."""
    ready = {process["slot"] for process in processes if process["state"] == ChildState.READY.value}
    missing = (process for process in processes if process["slot"] < group.wanted and process["slot"] not in ready)
    return next(missing, None)


def _vacancy(group: Group, slot: int, now: float) -> dict[str, Any]:
    """Make the row of a slot without a process."""
    past = _past(group, slot, now)
    shown = {"slot": slot, "pid": None, "generation": group.generation, "uptime_seconds": 0.0, "rss_bytes": 0, **past}
    return {**shown, **_why_vacant(group, slot, now)}


def _why_vacant(group: Group, slot: int, now: float) -> dict[str, Any]:
    """Tell what a slot without a process waits for, or that it is stopped or has finished."""
    if not group.phase.allows.wants_children:
        return {"state": "stopped", "reason": group.phase.value}
    if group.stopped:
        return {"state": "stopped", "reason": group.stopped}
    if group.unled:
        return {"state": "waiting", "reason": group.unled}
    unasked = [death.reason for death in group.deaths.get(slot, ()) if not death.was_asked]
    last = unasked[-1] if unasked else ""
    if slot in group.finished:
        return {"state": "finished", "reason": last}
    if group.is_held:
        return {"state": "waiting", "reason": f"after {', '.join(group.held_by)}"}
    waits = (group.next_run_at if group.is_scheduled else max(group.start_at(slot, now), group.spawn_at)) - now
    shown = {"state": "waiting", "reason": "schedule" if group.is_scheduled else last}
    return {**shown, "retry_in_seconds": round(waits, 3)} if 0 < waits < float("inf") else shown


def _past(group: Group, slot: int, now: float) -> dict[str, Any]:
    deaths = [
        {
            "seconds_ago": round(now - death.at, 3),
            "ready_seconds": None if death.ready_seconds is None else round(death.ready_seconds, 3),
            "exit_code": death.exit.code,
            "signal": death.exit.signal,
            "reason": death.reason,
        }
        for death in group.deaths.get(slot, ())
    ]
    return {"restarts": group.restarts.get(slot, 0), "deaths": deaths}
