"""The SQLite engine: what it keeps over a restart, whose file it is, what it says of files that it cannot use."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from rpccluster.errors import LeaseLost, QueueDown, StartError
from rpccluster.queues.engine import Ack, EndSession, Get, Item, Nack, Put, Rules, Stats
from rpccluster.queues.sqlite import SQLiteEngine

PUTTER, GETTER = b"p" * 16, b"g" * 16


def opened(path: Path, **rules: Any) -> SQLiteEngine:
    """Open an engine with the one queue ``jobs``."""
    engine = SQLiteEngine(str(path / "queues.db"), "os")
    engine.configure({"jobs": Rules(**rules)}, None)
    engine.open()
    return engine


def test_an_item_goes_its_way(tmp_path: Path) -> None:
    """Put, taken, given back, taken, acked; all of one batch is seen by the next verb."""
    engine = opened(tmp_path)
    put, got, nacked, again, old, acked, stats = engine.run(
        [
            Put("jobs", [b"x"], PUTTER, 1),
            Get("jobs", GETTER, 5),
            Nack("jobs", 2, 1),
            Get("jobs", GETTER),
            Ack("jobs", [(2, 1)]),
            Ack("jobs", [(2, 2)]),
            Stats("jobs"),
        ]
    ).answers
    assert (put, got, nacked, again, acked) == ([2], [Item(2, 1, b"x")], True, [Item(2, 2, b"x")], True)
    assert isinstance(old, LeaseLost)
    assert stats == {"ready": 0, "delayed": 0, "leased": 0, "dead": 0, "bytes": 0, "paused": False}
    engine.close()


def test_all_is_there_again_after_a_restart(tmp_path: Path) -> None:
    """Items, leases with their sessions, attempts, what repeats are answered with, what was acked."""
    engine = opened(tmp_path)
    ids = engine.run([Put("jobs", [b"a", b"b" * 5000, b"c"], PUTTER, 7)]).answers[0]
    taken = engine.run([Get("jobs", GETTER, 2, seq=3)]).answers[0]
    engine.run([Ack("jobs", [taken[0][:2]])])
    engine.close()
    engine = SQLiteEngine(str(tmp_path / "queues.db"), "os")
    engine.configure({"jobs": Rules()}, None)
    assert engine.open() == [GETTER]
    answers = engine.run(
        [
            Put("jobs", [b"a", b"b" * 5000, b"c"], PUTTER, 7),
            Get("jobs", GETTER, 2, seq=3),
            Ack("jobs", [taken[0][:2]]),
            EndSession(GETTER, counts=False),
            Get("jobs", PUTTER, 9),
        ]
    ).answers
    assert answers[:4] == [ids, [taken[1]], True, 1]
    assert answers[4] == [Item(ids[1], 2, b"b" * 5000), Item(ids[2], 1, b"c")]
    engine.close()


def test_a_file_has_one_keeper(tmp_path: Path) -> None:
    """The second is told the pid of the first."""
    import os

    engine = opened(tmp_path)
    with pytest.raises(StartError, match=f"process {os.getpid()} keeps them there"):
        opened(tmp_path)
    engine.close()
    opened(tmp_path).close()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no database at all", "it is no SQLite database"),
        (b"SQLite format 3\0" + b"\1" * 5000, "damaged|not a database"),
    ],
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    """It is left as it is."""
    (tmp_path / "queues.db").write_bytes(content)
    with pytest.raises(StartError, match=told):
        opened(tmp_path)
    assert (tmp_path / "queues.db").read_bytes() == content


def test_databases_of_others_and_of_newer_versions_are_refused(tmp_path: Path) -> None:
    """With what to do."""
    database = sqlite3.connect(tmp_path / "queues.db")
    database.execute("create table t (x)")
    database.close()
    with pytest.raises(StartError, match="a database of another program"):
        opened(tmp_path)
    (tmp_path / "queues.db").unlink()
    opened(tmp_path).close()
    database = sqlite3.connect(tmp_path / "queues.db")
    database.execute("pragma user_version = 2")
    database.close()
    with pytest.raises(StartError, match=r"found version 2, expected at most 1: .*start that one"):
        opened(tmp_path)


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    """What was not committed is answered with an error; what was is there, and room makes all well again."""
    engine = opened(tmp_path)
    engine.run([Put("jobs", [b"x" * 100], PUTTER, 1)])
    database = engine._database
    (pages,) = database.execute("pragma page_count").fetchone()
    database.execute(f"pragma max_page_count = {pages + 1}")
    answers = engine.run([Put("jobs", [b"y" * 500_000], PUTTER, 2), Stats("jobs")]).answers
    assert all(isinstance(answer, QueueDown) for answer in answers)
    database.execute("pragma max_page_count = 1000000")
    [stats, put] = engine.run([Stats("jobs"), Put("jobs", [b"y" * 500_000], PUTTER, 2)]).answers
    assert stats["ready"] == 1
    assert put == [3]
    engine.close()
