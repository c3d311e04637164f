"""Which sections there are, what a row shows, and the order of rows."""

from __future__ import annotations

from typing import Any

import pytest

from rpccluster.cli.top.sections import Section, sections
from rpccluster.cli.top.snapshots import History

from .made_up import BOUNDS, counts, group, snapshot, worker


def shown(*snapshots: Any) -> dict[str, Section]:
    """The sections after ``snapshots``, by name."""
    history = History()
    for each in snapshots:
        history.add(each)
    return {each.name: each for each in sections(history)}


def cells(section: Section) -> list[list[str]]:
    """What is written in each row."""
    return [[column.show(value) for column, value in zip(section.columns, row)] for row in section.rows]


def test_workers_and_what_they_run() -> None:
    """A worker that is full says so; the pid of a call is its worker's."""
    calls = [
        {
            "slot": 0,
            "pid": 100,
            "calls": [["slow", "10.0.0.1:5", 75.0], ["fast", "a", 0.0005]],
            "hosts": [["10.0.0.1", 2]],
        },
        {"slot": 1, "pid": 101, "error": "the process 101 does not answer; it has begun spin last"},
    ]
    found = shown(
        snapshot(0.0, worker(0), worker(1, full_seconds=2.0), cpu={100: 0.0}),
        snapshot(1.0, worker(0, 12_345), worker(1, full_seconds=3.0), calls=calls, cpu={100: 0.5}),
    )
    assert list(found) == ["workers", "methods", "running", "hosts"]
    assert cells(found["workers"]) == [
        ["0", "100", "ready", "48M", "50%", "2", "12.3k", "1", "12345", "0"],
        ["1", "101", "ready full", "48M", "-", "2", "0.0", "1", "0", "0"],
    ]
    running = found["running"].sorted(1, True)
    assert cells(running) == [
        ["slow", "75s", "0", "10.0.0.1:5"],
        ["fast", "500µs", "0", "a"],
        ["the process 101 does not answer; it has begun spin last", "-", "1", "-"],
    ]
    assert list(running.pids) == [100, 100, 101]
    assert cells(found["hosts"]) == [["10.0.0.1", "2", "1"]]


def test_methods_or_why_there_are_none() -> None:
    """The reason stands in their place."""
    assert shown(snapshot(0.0, worker(0), missing="no [metrics]"))["methods"].note == "no [metrics]"
    first = snapshot(0.0, worker(0), methods={"a": counts(0, 0, 0, 0, 0, 0)}, bounds=BOUNDS)
    last = snapshot(1.0, worker(0), methods={"a": counts(8, 0, 8, 0, 0, 0)}, bounds=BOUNDS)
    assert cells(shown(first, last)["methods"]) == [["a", "8.0", "0.0", "500µs", "990µs", "0", "8"]]


def test_what_stands_beside_workers() -> None:
    """Plugins and services, pools, queues; a cluster without workers has these alone."""
    queue = {
        "name": "jobs",
        "ready": 1,
        "delayed": 0,
        "leased": 0,
        "dead": 0,
        "waiting": 0,
        "bytes": 2048,
        "paused": True,
    }
    groups = [group("plugin:mail", "plugin", description="sends mail"), group("queues", "keeper", queues=[queue])]
    pool = {"name": "images", "processes": 2, "running": 1, "waiting": 3, "queue_size": 10}
    found = shown(snapshot(0.0, groups=groups, pools=[pool]))
    assert list(found) == ["groups", "pools", "queues"]
    assert cells(found["groups"])[0] == ["mail", "plugin", "ready", "200", "1M", "-", "61s", "1", "sends mail"]
    assert cells(found["pools"]) == [["images", "2", "1", "3", "10"]]
    assert cells(found["queues"]) == [["jobs", "1", "0", "0", "0", "0", "2K", "yes"]]
    silent = shown(snapshot(0.0, groups=[group("queues", "keeper", queues=None)]))
    assert silent["queues"].note == "the keeper does not answer"


def test_what_comes_from_outside_is_escaped() -> None:
    """A method's name may be anything."""
    calls = [{"slot": 0, "pid": 100, "calls": [["\x1b[2Jevil", "a", 1.0]], "hosts": []}]
    assert cells(shown(snapshot(0.0, worker(0), calls=calls))["running"])[0][0] == "\\x1b[2Jevil"


@pytest.mark.parametrize(("column", "is_descending", "slots"), [(0, False, [0, 1, 2]), (6, True, [1, 0, 2])])
def test_rows_are_sorted(column: int, is_descending: bool, slots: list[int]) -> None:
    """By any column; what is not known is the smallest."""
    before = snapshot(0.0, worker(0), worker(1))
    found = shown(before, snapshot(1.0, worker(2), worker(0, 5), worker(1, 9)))["workers"]
    assert [row[0] for row in found.sorted(column, is_descending).rows] == slots
