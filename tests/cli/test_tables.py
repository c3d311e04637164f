"""The tables of status, for people."""

from __future__ import annotations

from typing import Any

from rpccluster.cli.tables import _WHY_UNCOVERED, status_text
from rpccluster.ledger import why


def told(**changes: Any) -> dict[str, Any]:
    """A status of one worker and two plugins."""
    worker = {"slot": 0, "pid": 11, "generation": 1, "state": "ready", "cpus": [0, 1], "connections": 2}
    worker.update(active_calls=0, calls=5, errors=0, rss_bytes=1000)
    of_group = {"state": "ready", "reason": "", "description": "counts"}
    process = {"slot": 0, "pid": 12, "uptime_seconds": 5.2, "restarts": 3}
    waiting = {"slot": 0, "pid": None, "uptime_seconds": 0.0, "restarts": 9, "retry_in_seconds": 3.6}
    return {
        "master": {
            "pid": 10,
            "state": "running",
            "generation": 1,
            "version": "1.0",
            "number_workers": 1,
            "uptime_seconds": 7.4,
            "listeners": ["tcp://127.0.0.1:1"],
        },
        "workers": [worker],
        "groups": [
            {"name": "workers", "processes": [], **of_group},
            {"name": "plugin:one", "processes": [process], "listeners": ["tcp://[::1]:2", "unix:///x"], **of_group},
            {"name": "plugin:two", "processes": [waiting], "state": "waiting", "reason": "exit code 1\nand more"},
        ],
        **changes,
    }


def test_a_master_its_workers_and_its_other_groups() -> None:
    """A group's row says why it is not ready, else what it is for."""
    assert status_text(told()).splitlines() == [
        "master 10: running, generation 1, version 1.0, 1 workers wanted, up 7 s",
        "listening at tcp://127.0.0.1:1",
        "listening at tcp://[::1]:2, unix:///x for plugin:one",
        "slot  pid  generation  state  cpus  connections  active_calls  calls  errors  rss_bytes",
        "   0   11           1  ready   0,1            2             0      5       0       1000",
        "name  state    pids  up   restarts",
        "one   ready    12    5 s  3         counts",
        "two   waiting  -     -    9         exit code 1, again in 4 s",
    ]


def test_plugins_alone() -> None:
    """No table of workers, and none of their addresses."""
    master = {**told()["master"], "number_workers": 0, "listeners": []}
    assert [line.split()[0] for line in status_text(told(master=master, workers=[])).splitlines()] == [
        *("master", "listening", "name", "one", "two")
    ]


def test_a_master_of_an_older_build() -> None:
    """It knows no groups."""
    old = told()
    del old["groups"]
    assert status_text(old).splitlines()[-1].split()[0] == "0"


def test_what_would_end_with_its_worker_and_why() -> None:
    """Of all workers together, below their table."""
    shown = told(groups=[])
    (worker,) = shown["workers"]
    shown["workers"] = [
        {**worker, "uncovered_why": {"descriptors": 2, "yet another": 1}},
        {**worker, "uncovered_why": {"descriptors": 3}},
        {**worker, "uncovered_why": {}},
        worker,
    ]
    assert status_text(shown).splitlines()[-2:] == [
        "not crash-safe: 5 connections, since the master may hold no more descriptors (RLIMIT_NOFILE)",
        "not crash-safe: 1 connection, since yet another",
    ]


def test_every_reason_has_its_words() -> None:
    assert {getattr(why, name) for name in why.__all__} == _WHY_UNCOVERED.keys()


def test_a_full_worker() -> None:
    """Its state says since when."""
    full = told()
    full["workers"][0]["full_seconds"] = 12.3
    assert "ready (full for 12 s)" in status_text(full)
