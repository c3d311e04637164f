"""What the page shows of a ``status``, as HTML: one place that makes it, for a browser with scripts and one without.

Every part that changes has a key (``data-key``), by which the script finds what to change in what is shown already. So
nothing is made anew that stays: a selection and a focus are kept, and a screen reader is not told everything again.
Pure; runs in the page's process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

__all__ = ["Rates", "live", "summary"]

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
_SHORT_AGE = 5.0
_LONG_FACTS = ("Listens at", "Leader")


class Rates(NamedTuple):
    """The calls of one second, by the pids of workers: what has ended since the view before this one."""

    calls: Mapping[int, float] = {}


class _Column(NamedTuple):
    """A column of a table: its heading, its class for the style, and the text of its cells."""

    heading: str
    style: str
    text: Any


# -- texts


def _duration(seconds: float) -> str:
    """Return a duration in the largest unit that fits, so that a text changes seldom."""
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "under a minute"


def _wait(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else _duration(seconds)


def _bytes(number: float) -> str:
    for unit in _SIZES[:-1]:
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} {_SIZES[-1]}"


def _rate(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _reason(process: Mapping[str, Any]) -> str:
    reason = process.get("reason") or process.get("retire_reason") or ""
    retry = process.get("retry_in_seconds")
    return f"{reason}, in {_wait(retry)}" if retry else str(reason)


# -- the whole


def summary(status: Mapping[str, Any], age: float) -> str:
    """Return one sentence on the state of the cluster; it changes only when something of note does."""
    if age > _SHORT_AGE:
        return "The master does not answer: what follows is old."
    groups = [group for group in status["groups"] if not _rests(group)]
    ready = sum(min(_ready(group), group["wanted"]) for group in groups)
    wanted = sum(group["wanted"] for group in groups)
    state = status["master"]["state"]
    bad = [group["name"] for group in groups if group["state"] != "ready"]
    told = f"{ready} of {wanted} processes are ready; the cluster is {state}."
    return f"{told} Not ready: {', '.join(bad)}." if bad else told


def _rests(group: Mapping[str, Any]) -> bool:
    """Return whether nothing of a group is to run now, since it has finished, was stopped, or waits for its time."""
    return group["state"] in ("finished", "stopped") or group["reason"] == "schedule"


def _ready(group: Mapping[str, Any]) -> int:
    return sum(process["state"] == "ready" for process in group["processes"])


def live(status: Mapping[str, Any], rates: Rates, pools: Iterable[Mapping[str, Any]] = ()) -> str:
    """Return the part of the page that follows the cluster."""
    by_kind = {group["name"]: group for group in status["groups"]}
    others = [group for group in status["groups"] if group["name"] != "workers"]
    queues = [queue for group in others for queue in group.get("queues") or ()]
    parts = [
        _facts(status["master"]),
        _workers(status["workers"], by_kind["workers"], rates) if "workers" in by_kind else "",
        _others(others) if others else "",
        _pools(list(pools)),
        _queues(queues),
    ]
    return "".join(part for part in parts if part)


def _facts(master: Mapping[str, Any]) -> str:
    leadership = master.get("leadership")
    facts = {
        "Version": master["version"],
        "Up for": _duration(master["uptime_seconds"]),
        "Generation": master["generation"],
        "Settings": f"version {master['settings']['version']}",
        "Engine": master["engine"] or "–",
        "Master": f"pid {master['pid']}",
        "Listens at": ", ".join(master["listeners"]) or "–",
    }
    if leadership:
        leader = leadership["leader"] or "nobody"
        facts["Leader"] = "this cluster" if leadership["is_leader"] else leader
    items = "".join(_fact(name, str(value)) for name, value in facts.items())
    heading = '<h2 id="h-facts">The cluster</h2>'
    return f'<section data-key="facts" aria-labelledby="h-facts">{heading}<dl>{items}</dl></section>'


def _fact(name: str, value: str) -> str:
    style = ' class="long"' if name in _LONG_FACTS else ""
    return f'<div data-key="{escape(name)}"{style}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>'


def _state(process: Mapping[str, Any]) -> str:
    reason = _reason(process)
    told = f'<span class="reason">{escape(reason)}</span>' if reason else ""
    state = escape(process["state"])
    return f'<span class="state {state}">{state}</span>{told}'


_PROCESS = (
    _Column("PID", "number", lambda process: str(process["pid"] or "–")),
    _Column("State", "text", _state),
    _Column("Up for", "text wide", lambda process: _duration(process["uptime_seconds"]) if process["pid"] else "–"),
    _Column("Memory", "number", lambda process: _bytes(process["rss_bytes"]) if process["pid"] else "–"),
)
_RESTARTS = _Column("Restarts", "number wide", lambda process: str(process["restarts"]))


def _workers(workers: Sequence[Mapping[str, Any]], group: Mapping[str, Any], rates: Rates) -> str:
    known = {worker["pid"]: worker for worker in workers}
    rows = [{**process, **known.get(process["pid"], {})} for process in group["processes"]]
    columns = (
        *_PROCESS,
        _Column("Connections", "number wide", lambda worker: str(worker.get("connections", "–"))),
        _Column("Running", "number wide", lambda worker: str(worker.get("active_calls", "–"))),
        _Column("Calls/s", "number", lambda worker: _rate(rates.calls.get(worker["pid"]))),
        _RESTARTS,
    )
    headings = ("Slot",)
    cells = [((str(row["slot"]),), f"worker-{row['slot']}-{row['pid']}", row) for row in rows]
    return _table("workers", f"Workers ({group['wanted']})", headings, columns, cells)


def _others(groups: Iterable[Mapping[str, Any]]) -> str:
    cells = [
        (
            (f"{group['name']} {process['slot']}" if len(group["processes"]) > 1 else group["name"],),
            f"{group['name']}-{process['slot']}-{process['pid']}",
            process,
        )
        for group in groups
        for process in group["processes"]
    ]
    return _table("others", "Plugins, pools and services", ("Process",), (*_PROCESS, _RESTARTS), cells)


def _pools(pools: Sequence[Mapping[str, Any]]) -> str:
    columns = [
        _Column(heading, "number", lambda pool, key=key: str(pool[key]))
        for key, heading in (("processes", "Processes"), ("running", "Running"), ("waiting", "Waiting"))
    ]
    cells = [((pool["name"],), f"pool-{pool['name']}", pool) for pool in pools]
    return _table("pools", "Task pools", ("Pool",), columns, cells) if pools else ""


def _queues(queues: Sequence[Mapping[str, Any]]) -> str:
    columns = [
        _Column(key.capitalize(), "number", lambda queue, key=key: str(queue.get(key, "–")))
        for key in ("ready", "leased", "delayed", "dead")
    ]
    cells = [((queue["name"],), f"queue-{queue['name']}", queue) for queue in queues]
    return _table("queues", "Queues", ("Queue",), columns, cells) if queues else ""


Row = tuple  # of the texts of its headings, its key, and what its cells show


def _table(key: str, caption: str, headings: Iterable[str], columns: Sequence[_Column], rows: Iterable[Row]) -> str:
    """Return a section with one table, whose first columns are the headings of its rows."""
    heads = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    heads += "".join(f'<th scope="col" class="{each.style}">{escape(each.heading)}</th>' for each in columns)
    body = "".join(_rows(columns, rows))
    return (
        f'<section data-key="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{escape(caption)}</h2>'
        f'<table aria-labelledby="h-{key}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></section>'
    )


def _rows(columns: Sequence[_Column], rows: Iterable[Row]) -> Iterator[str]:
    for headings, key, shown in rows:
        heads = "".join(f'<th scope="row">{escape(heading).replace(":", ":<wbr>")}</th>' for heading in headings)
        cells = "".join(f'<td class="{each.style}">{_cell(each, shown)}</td>' for each in columns)
        yield f'<tr data-key="{escape(key)}">{heads}{cells}</tr>'


def _cell(column: _Column, shown: Any) -> str:
    text = str(column.text(shown))
    return text if column.text is _state else escape(text)
