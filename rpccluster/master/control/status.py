"""Makes the contract's ``status`` from the master's data. Runs in the master.

A kind adds the fields of its own processes; everything else is the same for all kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import count
from typing import Any

from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.master.children.child import Child, ChildState
from rpccluster.master.children.group import Group
from rpccluster.master.cluster import Cluster
from rpccluster.master.handover.broker import Broker
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.rpc import RPC, RPCWorker
from rpccluster.master.pieces import Work
from rpccluster.master.resources.listeners import Listener
from rpccluster.master.resources.service_listeners import LEADERSHIP
from rpccluster.protocol.codec import Encoded, make_packer
from rpccluster.version import __version__

__all__ = ["Status", "of_group"]

SLOTS_A_STEP = 25

#: Returns the fields that only the kind of a child has; gets the time, too (monotonic seconds).
Fields = Callable[[Child, float], "dict[str, Any]"]


class Status:
    """The ``status`` of one master."""

    def __init__(self, cluster: Cluster, workers: Group, groups: Groups, rpc: RPC, broker: Broker) -> None:
        """``rpc`` is the kind of ``workers``; a cluster without a service has none, and no such group among all."""
        self._cluster = cluster
        self._workers = workers
        self._groups = groups
        self._rpc = rpc
        self._broker = broker

    def make(self, pid: int, now: Callable[[], float], warden: int = 0) -> Work[dict[str, Any]]:
        """Make the ``status`` of the master ``pid``, in steps; ``warden`` is its warden's pid.

        ``now`` returns monotonic seconds. Each slot is told of as it is when its step comes. The rows are packed.
        """
        master = {**self._master(pid, now()), "warden_pid": warden}
        workers: list[Encoded] = []
        groups = []
        for group in list(self._groups.all):
            groups.append((yield from self._group(group, workers, now)))
        return {"master": master, "workers": workers, "groups": groups}

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

    def _group(self, group: Group, workers: list[Encoded], now: Callable[[], float]) -> Work[dict[str, Any]]:
        cluster = self._cluster
        if group is not self._workers:
            kind, listeners = self._groups.kinds[group.kind.name], cluster.plugin_listeners.get(group.name, [])
            return of_group(group, kind.status, _addresses(listeners), now, cluster.settings_version)

        packer = make_packer()

        def fields(child: Child, now: float) -> dict[str, Any]:
            own = self._rpc.status(child, now)
            workers.append(Encoded(packer.pack(self._worker(child, own, now))))  # its row is read once
            return own

        return of_group(group, fields, _addresses(cluster.listeners), now, cluster.settings_version)

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

    def _uncovered(self, child: Child) -> dict[str, Any]:
        """How many connections would end with a worker, and why, where that is asked of a cluster."""
        assert isinstance(child, RPCWorker)
        if not self._cluster.options.crash_safe:
            return {}
        found = self._broker.uncovered(child)
        return {"uncovered": sum(found.values()), "uncovered_why": found}


def _addresses(listeners: Iterable[Listener]) -> list[str]:
    return [str(listener.actual) for listener in listeners]


def of_group(
    group: Group, fields: Fields, listeners: list[str], now: Callable[[], float], version: int = 0
) -> Work[dict[str, Any]]:
    """What ``status`` tells of one group, which has these ``listeners``; ``version`` of the settings is in force.

    Each step makes and packs the rows of some slots. ``fields`` returns those that the kind of a child adds.
    """
    packer = make_packer()
    processes: list[Encoded] = []
    unready: dict[int, tuple[str, str]] = {}  # state and reason of each slot without a ready process
    for slots in _steps(group):
        rows = list(_rows(group, slots, fields, now(), version))
        processes += [Encoded(packer.pack(row)) for row in rows]
        unready.update(_unready(rows))
        yield len(rows)
    first = next((unready[slot] for slot in sorted(unready) if slot < group.wanted), None)
    return {
        "name": group.name,
        "kind": group.kind.name,
        "description": group.description,
        "state": first[0] if first else ChildState.READY.value,
        "wanted": group.wanted,
        "reason": first[1] if first else "",
        "listeners": listeners,
        "processes": processes,
    }


def _steps(group: Group) -> Iterator[range]:
    """Yield all slots of a group, some at a time; there may be more of them or fewer meanwhile."""
    for first in count(0, SLOTS_A_STEP):
        if first >= max([group.wanted, *(child.slot + 1 for child in group.children)]):
            return
        yield range(first, first + SLOTS_A_STEP)


def _rows(group: Group, slots: range, fields: Fields, now: float, version: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of slots in their order, in each the older process first."""
    held: dict[int, list[Child]] = {slot: [] for slot in slots}
    for child in group.children:
        if child.slot in slots:
            held[child.slot].append(child)
    for slot, children in held.items():
        for child in sorted(children, key=lambda child: child.booted_at):
            yield _process(group, child, fields(child, now), now, version)
        if not children and slot < group.wanted:
            yield _vacancy(group, slot, now)


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


def _unready(rows: list[dict[str, Any]]) -> dict[int, tuple[str, str]]:
    """Return the state and the reason in the first row of each slot that has no ready process."""
    ready = {row["slot"] for row in rows if row["state"] == ChildState.READY.value}
    return {row["slot"]: (row["state"], row.get("reason", "")) for row in reversed(rows) if row["slot"] not in ready}


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
