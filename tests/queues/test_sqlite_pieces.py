"""The SQLite engine does nothing for long: what concerns many items goes in pieces, and the log has a limit."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Callable

import pytest

from rpccluster.errors import LeaseLost, QueueDown
from rpccluster.queues.engine import Ack, EndSession, Get, Item, Put, Rules, Stats
from rpccluster.queues.sqlite import SQLiteEngine, upkeep
from rpccluster.queues.timescale import Timescale

MANY = 4000
PAGE = 4096
GONE, OTHER = b"g" * 16, b"o" * 16


def opened(path: Path, *arguments: Any, **options: Any) -> SQLiteEngine:
    """Open an engine with the one queue ``jobs``."""
    engine = SQLiteEngine(str(path / "queues.db"), "os", *arguments, **options)
    engine.configure({"jobs": Rules()}, None)
    engine.open()
    return engine


def test_a_consumer_that_has_gone_gives_many_items_back_in_pieces(tmp_path: Path) -> None:
    """Others are served between them; what the session has got since it came back stays as it is, alone."""
    engine = opened(tmp_path)
    taken = engine.run([Put("jobs", [b"x"] * MANY), Get("jobs", GONE, MANY)]).answers[1]
    outcome = engine.run([EndSession(GONE), Stats("jobs")])
    assert outcome.answers[0] == MANY
    assert 0 < outcome.answers[1]["leased"] < MANY
    assert outcome.wake_in == 0
    acked, again, stats = engine.run([Ack("jobs", [taken[-1][:2]]), Get("jobs", GONE), Stats("jobs")]).answers
    assert isinstance(acked, LeaseLost)
    assert again == [Item(taken[0].id, 2, b"x")]
    assert stats["leased"] > 1
    while outcome.wake_in == 0:
        outcome = engine.run([Stats("jobs")])
    assert (outcome.answers[0]["ready"], outcome.answers[0]["leased"]) == (MANY - 1, 1)
    engine.close()


def drained(engine: SQLiteEngine, wake_in: float | None = 0.0) -> dict[str, Any]:
    """The stats when nothing is left to be given back."""
    stats: dict[str, Any] = {}
    while wake_in == 0 or not stats:
        outcome = engine.run([Stats("jobs")])
        wake_in, stats = outcome.wake_in, outcome.answers[0]
    return stats


def test_a_get_that_is_repeated_after_its_session_has_ended_takes_anew(tmp_path: Path) -> None:
    """Not what is still to be given back: that would be taken away again while its consumer works at it."""
    engine = opened(tmp_path)
    engine.run([Put("jobs", [b"x"] * MANY), Get("jobs", GONE, MANY, seq=7)])
    engine.run([EndSession(GONE)])
    taken = engine.run([Get("jobs", GONE, MANY, seq=7)]).answers[0]
    assert taken
    assert {item.attempt for item in taken} == {2}
    assert drained(engine)["leased"] == len(taken)
    assert engine.run([Ack("jobs", [item[:2] for item in taken])]).answers == [True]
    engine.close()


def test_many_sessions_that_end_at_once_share_the_pieces(tmp_path: Path) -> None:
    """As those of one consumer do, which had many calls."""
    engine = opened(tmp_path)
    sessions = [number.to_bytes(16, "big") for number in range(10)]
    engine.run([Put("jobs", [b"x"] * MANY), *(Get("jobs", session, MANY // 10) for session in sessions)])
    outcome = engine.run([*map(EndSession, sessions), Stats("jobs")])
    assert outcome.answers[:-1] == [MANY // 10] * 10
    assert outcome.answers[-1]["leased"] > MANY // 2
    assert drained(engine) == {**outcome.answers[-1], "ready": MANY, "leased": 0}
    engine.close()


@pytest.mark.parametrize("when", ["before", "in the same batch"])
def test_sessions_have_ended_though_the_disk_was_full_meanwhile(tmp_path: Path, when: str) -> None:
    """Nobody says it again, and the lease has long to go."""
    engine = opened(tmp_path)
    engine.run([Put("jobs", [b"x"] * MANY), Get("jobs", GONE, MANY)])
    database = engine._database
    if when == "before":
        engine.run([EndSession(GONE)])
    pages = database.execute("pragma page_count").fetchone()[0]
    database.execute(f"pragma max_page_count = {pages + 1}")
    large = Put("jobs", [b"x" * 100 * PAGE])
    failed = engine.run([large] if when == "before" else [EndSession(GONE), large])
    assert isinstance(failed.answers[-1], QueueDown)
    database.execute("pragma max_page_count = 1000000")
    assert drained(engine)["leased"] == 0
    engine.close()


def test_the_log_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though more is put than the copy beside it can keep up with: then commits wait for it."""
    for name, pages in {"COPY_FRAMES": 10, "REST_FRAMES": 5, "RESTART_FRAMES": 100, "MOST_FRAMES": 200}.items():
        monkeypatch.setattr(upkeep, name, pages)
    copies: list[Callable[[], object]] = []

    def copy_all(seconds: float) -> None:
        copies.pop()()

    engine = opened(tmp_path, lambda copy, arguments: copies.append(copy), sleep=copy_all)
    for _ in range(100):
        engine.run([Put("jobs", [b"x" * 10 * PAGE])])
    engine._upkeep._sleep(0) if copies else None
    assert (tmp_path / "queues.db-wal").stat().st_size < 250 * PAGE
    assert engine.run([Stats("jobs")]).answers[0]["ready"] == 100
    engine.close()


def test_sessions_that_put_nothing_for_a_day_are_forgotten(tmp_path: Path) -> None:
    """In pieces, when nothing else is to be done; a younger one is answered as before."""
    now = [1000.0]
    engine = opened(tmp_path, make_time=lambda kept, boot: Timescale(None, "", lambda: now[0]))
    engine.run([Put("jobs", [b"x"], b"old session %08d" % number, 1) for number in range(MANY)])
    now[0] += 23 * 3600.0
    young = engine.run([Put("jobs", [b"x"], OTHER, 1)]).answers
    assert sessions(engine) == MANY + 1
    now[0] += 2 * 3600.0
    while engine.keep_up():
        pass
    assert sessions(engine) == 1
    engine.close()
    engine = opened(tmp_path)
    assert engine.run([Put("jobs", [b"x"], OTHER, 1)]).answers == young
    engine.close()


def test_dedup_ids_are_forgotten_many_at_once(tmp_path: Path) -> None:
    """In one transaction each piece, and so with one fsync: a keeper under load has no more time for it."""
    now = [1000.0]
    engine = opened(tmp_path, make_time=lambda kept, boot: Timescale(None, "", lambda: now[0]))
    engine.run([Put("jobs", [b"x"], dedup_id=f"{number}") for number in range(MANY)])
    now[0] += 301.0
    engine.run([Put("jobs", [b"x"])])
    written = engine._upkeep._log.read()[0]
    while engine.keep_up(is_idle=False):
        pass
    left = sqlite3.connect(engine._path)
    assert left.execute("select count(*) from duplicates").fetchone() == (0,)
    assert engine._upkeep._log.read()[0] - written < MANY // 4
    left.close()
    engine.close()


def sessions(engine: SQLiteEngine) -> int:
    """How many sessions the file has."""
    database = sqlite3.connect(engine._path)
    (number,) = database.execute("select count(*) from sessions").fetchone()
    database.close()
    return int(number)
