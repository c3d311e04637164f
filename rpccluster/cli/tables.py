"""Writes what ``status`` tells as tables for people. Pure; the process that the user starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["groups_text", "queue_text", "queues_text", "status_text", "table"]

_OF_WORKERS = [
    "slot",
    "pid",
    "generation",
    "state",
    "cpus",
    "connections",
    "active_calls",
    "calls",
    "errors",
    "rss_bytes",
]
#: Why connections would end with their worker though `crash_safe` is on, by the names of `rpccluster.ledger.why`.
_WHY_UNCOVERED = {
    "python_engine": "the Python engine runs their calls",
    "started_without": "their worker was started without crash_safe",
    "no_ledger": "their worker could have no ledger, as the log tells",
    "descriptors": "the master may hold no more descriptors (RLIMIT_NOFILE)",
    "ledger_full": "the ledger of their worker is full",
    "kind_of_socket": "this kernel does not count what passes Unix sockets",
    "new": "they have just come, or have yet to pass the challenge",
}
_OF_QUEUES = ("name", "ready", "delayed", "leased", "dead", "waiting", "bytes", "paused")
_OF_GROUPS = ("name", "state", "pids", "up", "restarts", "")


def status_text(told: dict[str, Any]) -> str:
    """Write the ``status`` of a master: a line about it, a table of its workers, and one of its other groups."""
    master = told["master"]
    paragraphs = [_head(master)]
    if told["workers"] or master["number_workers"]:
        paragraphs.append("\n".join(table([_OF_WORKERS, *map(_worker, told["workers"])])))
        paragraphs += _uncovered(told["workers"])
    others = [group for group in told.get("groups", ()) if group["name"] != "workers"]
    paragraphs[1:1] = [_listening(group["listeners"], group["name"]) for group in others if group.get("listeners")]
    if others:
        paragraphs.append(groups_text(others))
    queues = [queue for group in others for queue in group.get("queues") or ()]
    if queues:
        paragraphs.append(queues_text(queues))
    return "\n".join(paragraphs)


def groups_text(groups: Iterable[dict[str, Any]]) -> str:
    """Write a table of ``groups``, as ``status`` tells them: a line each."""
    return "\n".join(table([_OF_GROUPS, *map(_group, groups)], left=len(_OF_GROUPS)))


def queues_text(queues: Iterable[dict[str, Any]]) -> str:
    """Write a table of ``queues``, as ``queue list`` tells them: a line each."""
    rows = [[_text(queue[column]) for column in _OF_QUEUES] for queue in queues]
    return "\n".join(table([_OF_QUEUES, *rows], left=1))


def queue_text(queue: dict[str, Any]) -> str:
    """Write a table of one of them: a line each number."""
    return "\n".join(table([[key, _text(queue[key])] for key in _OF_QUEUES if key in queue], left=1))


def _text(cell: Any) -> str:
    return ("yes" if cell else "no") if isinstance(cell, bool) else str(cell)


def _head(master: dict[str, Any]) -> str:
    about = f"master {master['pid']}: {master['state']}, generation {master['generation']}, version {master['version']}"
    about += f", {master['number_workers']} workers wanted, up {master['uptime_seconds']:.0f} s"
    return "\n".join([about, _listening(master["listeners"])] if master["listeners"] else [about])


def _listening(addresses: Iterable[str], name: str = "") -> str:
    return f"listening at {', '.join(addresses)}{name and ' for '}{name}"


def _worker(worker: dict[str, Any]) -> list[str]:
    shown = dict(worker)
    if worker.get("full_seconds"):  # a master of another version may lack it
        shown["state"] += f" (full for {worker['full_seconds']:.0f} s)"
    return [_cell(shown[column]) for column in _OF_WORKERS]


def _uncovered(workers: Iterable[dict[str, Any]]) -> list[str]:
    """Say how many connections would end with their worker, and why: a line each reason."""
    found: Counter[str] = Counter()
    for worker in workers:
        found.update(worker.get("uncovered_why") or {})
    return [
        f"not crash-safe: {count} {'connection' if count == 1 else 'connections'}, since {_WHY_UNCOVERED.get(why, why)}"
        for why, count in sorted(found.items())
    ]


def _group(group: dict[str, Any]) -> list[str]:
    processes = group["processes"]
    pids = [str(each["pid"]) for each in processes if each["pid"] is not None]
    up = [each["uptime_seconds"] for each in processes if each["pid"] is not None]
    return [
        group["name"].partition(":")[2] or group["name"],
        group["state"],
        ",".join(pids) or "-",
        f"{min(up):.0f} s" if up else "-",
        str(sum(each["restarts"] for each in processes)),
        _note(group),
    ]


def _note(group: dict[str, Any]) -> str:
    """Say why the group is not ready, and when that will be tried again; if it is ready, what it is for."""
    waits = [each["retry_in_seconds"] for each in group["processes"] if "retry_in_seconds" in each]
    again = f"again in {min(waits):.0f} s" if waits else ""
    reason = group["reason"].partition("\n")[0]
    return ", ".join(filter(None, [reason, again])) or group.get("description", "")


def table(rows: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Align ``rows`` of equal length in columns: the first ``left`` of them to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _cell(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
