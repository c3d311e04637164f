"""The sections of the screen: which rows each has, how a cell is written, by what it is sorted. Pure.

The process that the user starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, NamedTuple

from rpccluster.cli.top.snapshots import History
from rpccluster.log import escaped

__all__ = ["Column", "Section", "sections"]


class Column(NamedTuple):
    """A column: its title, and how a value of it is written. A text stands at the left, a number at the right."""

    title: str
    show: Callable[[Any], str]
    is_text: bool = False


@dataclass(frozen=True)
class Section:
    """A table. ``note`` stands where it has no rows; ``pids`` has the worker's pid of each row, if it has one."""

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    pids: Sequence[int] = field(default_factory=tuple)
    sorted_by: int = 0
    is_descending: bool = False

    def sorted(self, column: int, is_descending: bool) -> Section:
        """Return it with its rows sorted by a column."""
        order = sorted(range(len(self.rows)), key=lambda row: _key(self.rows[row][column]), reverse=is_descending)
        pids = [self.pids[row] for row in order] if self.pids else ()
        rows = [self.rows[row] for row in order]
        return Section(self.name, self.columns, rows, self.note, pids, column, is_descending)


def _key(value: Any) -> tuple[bool, Any]:
    """Return what sorts a value; one that is not known comes first."""
    return (False, 0) if value is None else (True, value)


# -- how values are written


def _text(value: Any) -> str:
    return "-" if value in (None, "") else escaped(str(value))


def _size(value: int | None) -> str:
    if value is None:
        return "-"
    number = float(value)
    for unit in ("B", "K", "M"):
        if number < 1024:
            return f"{number:.0f}{unit}"
        number /= 1024
    return f"{number:.1f}G"


def _rate(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.1f}"
    return f"{value:.0f}" if value < 10_000 else f"{value / 1000:.1f}k"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    for factor, unit, most in ((1e6, "µs", 1e-3), (1e3, "ms", 1.0), (1.0, "s", 100.0)):
        if value < most:
            number = value * factor
            return f"{number:.1f}{unit}" if number < 10 else f"{number:.0f}{unit}"
    return f"{value / 60:.0f}min" if value < 6000 else f"{value / 3600:.0f}h"


def _yes(value: bool) -> str:
    return "yes" if value else ""


# -- the sections

_WORKERS = (
    Column("WORKER", _text),
    Column("PID", _text),
    Column("STATE", _text, True),
    Column("RSS", _size),
    Column("CPU", _share),
    Column("CONN", _text),
    Column("CALLS/S", _rate),
    Column("RUNNING", _text),
    Column("CALLS", _text),
    Column("ERRORS", _text),
)
_METHODS = (
    Column("METHOD", _text, True),
    Column("CALLS/S", _rate),
    Column("FAIL/S", _rate),
    Column("P50", _seconds),
    Column("P99", _seconds),
    Column("RUNNING", _text),
    Column("CALLS", _text),
)
_CALLS = (
    Column("RUNNING CALL", _text, True),
    Column("SINCE", _seconds),
    Column("WORKER", _text),
    Column("PEER", _text, True),
)
_HOSTS = (Column("CALLER'S HOST", _text, True), Column("CONN", _text), Column("WORKERS", _text))
_GROUPS = (
    Column("GROUP", _text, True),
    Column("KIND", _text, True),
    Column("STATE", _text, True),
    Column("PIDS", _text, True),
    Column("RSS", _size),
    Column("CPU", _share),
    Column("UP", _seconds),
    Column("RESTARTS", _text),
    Column("NOTE", _text, True),
)
_POOLS = (
    Column("POOL", _text, True),
    Column("PROCESSES", _text),
    Column("RUNNING", _text),
    Column("WAITING", _text),
    Column("MOST", _text),
)
_QUEUES = (
    Column("QUEUE", _text, True),
    Column("READY", _text),
    Column("DELAYED", _text),
    Column("LEASED", _text),
    Column("DEAD", _text),
    Column("WAITING", _text),
    Column("BYTES", _size),
    Column("PAUSED", _yes, True),
)


def sections(history: History) -> list[Section]:
    """Return all sections that this cluster has."""
    return [each for each in _all(history) if each is not None]


def _all(history: History) -> Iterator[Section | None]:
    if history.last.status["workers"] or history.last.status["master"]["number_workers"]:
        yield _workers(history)
        yield _methods(history)
        yield _running(history)
        yield _hosts(history)
    yield _groups(history)
    yield _pools(history)
    yield _queues(history)


def _workers(history: History) -> Section:
    workers = history.last.status["workers"]
    rows = [
        (
            worker["slot"],
            worker["pid"],
            worker["state"] + (" full" if worker.get("full_seconds") else ""),
            worker["rss_bytes"],
            history.cpu_share(worker["pid"]),
            worker["connections"],
            history.call_rate(worker["pid"]),
            worker["active_calls"],
            worker["calls"],
            worker["errors"],
        )
        for worker in workers
    ]
    return Section("workers", _WORKERS, rows, "no worker", [worker["pid"] for worker in workers])


def _methods(history: History) -> Section:
    last = history.last
    running = Counter(method for worker in last.calls for method, _, _ in worker.get("calls", ()))
    rows = [
        (each.name, each.rate, each.failing, each.p50, each.p99, running[each.name], each.calls)
        for each in history.methods()
    ]
    return Section("methods", _METHODS, rows, last.missing or "no call yet", (), 1, True)


def _running(history: History) -> Section:
    workers = history.last.calls
    calls = [(worker, *call) for worker in workers for call in worker.get("calls", ())]
    rows: list[tuple[Any, ...]] = [(method, seconds, worker["slot"], peer) for worker, method, peer, seconds in calls]
    pids = [worker["pid"] for worker, *_ in calls]
    for worker in workers:
        if "error" in worker:
            rows.append((worker["error"], None, worker["slot"], None))
            pids.append(worker["pid"])
    return Section("running", _CALLS, rows, "no call runs", pids, 1, True)


def _hosts(history: History) -> Section:
    connections: Counter[str] = Counter()
    workers: Counter[str] = Counter()
    for worker in history.last.calls:
        for host, number in worker.get("hosts", ()):
            connections[host] += number
            workers[host] += 1
    rows = [(host, number, workers[host]) for host, number in connections.items()]
    return Section("hosts", _HOSTS, rows, "no connection", (), 1, True)


def _groups(history: History) -> Section | None:
    groups = [each for each in history.last.status.get("groups", ()) if each["name"] != "workers"]
    rows = [_group(history, group) for group in groups]
    return Section("groups", _GROUPS, rows) if rows else None


def _group(history: History, group: dict[str, Any]) -> tuple[Any, ...]:
    living = [each for each in group["processes"] if each["pid"] is not None]
    shares = [share for each in living for share in (history.cpu_share(each["pid"]),) if share is not None]
    return (
        group["name"].partition(":")[2] or group["name"],
        group["kind"],
        group["state"],
        ",".join(str(each["pid"]) for each in living),
        sum(each["rss_bytes"] for each in living) or None,
        sum(shares) if shares else None,
        min((each["uptime_seconds"] for each in living), default=None),
        sum(each["restarts"] for each in group["processes"]),
        group["reason"].partition("\n")[0] or group.get("description", ""),
    )


def _pools(history: History) -> Section | None:
    pools = history.last.pools
    rows = [tuple(each[key] for key in ("name", "processes", "running", "waiting", "queue_size")) for each in pools]
    return Section("pools", _POOLS, rows) if rows else None


def _queues(history: History) -> Section | None:
    keeper = next((each for each in history.last.status.get("groups", ()) if each["name"] == "queues"), None)
    if keeper is None:
        return None
    keys = ("name", "ready", "delayed", "leased", "dead", "waiting", "bytes", "paused")
    told = keeper.get("queues")
    rows = [tuple(each[key] for key in keys) for each in told or ()]
    return Section("queues", _QUEUES, rows, "no queue" if told is not None else "the keeper does not answer")
