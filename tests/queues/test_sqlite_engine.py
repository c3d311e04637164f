"""The SQLite engine: what it keeps over a restart, whose file it is, what it says of files that it cannot use."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rpccluster.errors import EngineFailed, LeaseLost, QueueDown, StartError
from rpccluster.queues.engine import Ack, Dead, DeadItem, EndSession, Get, Item, Nack, Purge, Put, Rules, Stats, Touch
from rpccluster.queues.sqlite import SQLiteEngine
from rpccluster.queues.timescale import Timescale

CHECKOUT = Path(__file__).resolve().parents[2]
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


def test_all_that_one_batch_does_to_an_item_is_kept(tmp_path: Path) -> None:
    """A lease, the end of another one before it, a purge: the next keeper knows what the last one has done."""
    engine = opened(tmp_path, max_attempts=2)
    [twice, purged] = engine.run([Put("jobs", [b"twice", b"purged"])]).answers[0]
    again = [Get("jobs", GETTER), Nack("jobs", twice, 1, error="why"), Get("jobs", GETTER, 2), Touch("jobs", twice, 2)]
    engine.run([*again, Purge("jobs")])
    engine.close()
    engine = opened(tmp_path, max_attempts=2)
    nacked, acked, dead = engine.run([Nack("jobs", twice, 2), Ack("jobs", [(purged, 1)]), Dead("jobs")]).answers
    assert (nacked, acked, dead) == (True, True, [DeadItem(twice, 2, b"twice", "why")])
    engine.close()


def test_an_item_that_is_given_back_and_taken_again_is_kept_as_it_is_last(tmp_path: Path) -> None:
    """However often in one batch; each line is a batch of its own, and after each there is another keeper."""
    first = 2  # the number before it is that of the queue
    back, taken, gone = Nack("jobs", first, 1, error="one"), Get("jobs", GETTER), Nack("jobs", first, 2, error="two")
    engine = opened(tmp_path, max_attempts=9)
    assert engine.run([Put("jobs", [b"x"], PUTTER, 1), Get("jobs", GETTER)]).answers[0] == [first]
    for batch, after in (
        ([back, taken, gone], (0, "two")),
        ([taken], (3, "two")),
        ([Nack("jobs", first, 3)], (0, "two")),
        ([taken, Nack("jobs", first, 4, error="four")], (0, "four")),
        ([taken, Nack("jobs", first, 5, error="five"), taken, Touch("jobs", first, 6)], (6, "five")),
        ([Nack("jobs", first, 6, error="six"), taken], (7, "six")),
    ):
        assert not [each for each in engine.run(batch).answers if isinstance(each, Exception)]
        engine.close()
        engine = opened(tmp_path, max_attempts=9)
        is_leased = engine.run([Stats("jobs")]).answers[0]["leased"]
        row = engine._database.execute("select state, attempt, error, session, until is null from items").fetchone()
        held = (3, after[0], after[1], GETTER, 0) if is_leased else (0, row[1], after[1], None, 1)
        assert row == held
        assert bool(is_leased) == bool(after[0])
    engine.close()


def test_what_becomes_of_many_at_once_is_kept_of_each(tmp_path: Path) -> None:
    """Some of them share a statement, others do not."""
    engine = opened(tmp_path)
    values = [b"x" * (2000 if number % 3 else 10) for number in range(200)]
    ids = engine.run([Put("jobs", values)]).answers[0]
    getters = [b"%016d" % number for number in range(4)]
    one, two, three, four = engine.run(
        [Get("jobs", getter, n, seq=seq) for getter, n, seq in zip(getters, (70, 45, 3, 1), range(1, 5))]
    ).answers
    assert [item.id for item in one + two + three + four] == ids[:119]
    back = [Nack("jobs", item.id, 1, error=f"{number // 30}") for number, item in enumerate(two)]
    engine.run([*back, Ack("jobs", [item[:2] for item in one[:65]])])
    engine.close()
    engine = opened(tmp_path)
    rows = engine._database.execute("select id, state, attempt, session, seq, error from items order by id").fetchall()
    assert rows[:5] == [(id, 3, 1, getters[0], 1, None) for id in ids[65:70]]
    assert rows[5:50] == [(id, 0, 1, None, None, f"{number // 30}") for number, id in enumerate(ids[70:115])]
    assert rows[50:54] == [
        *((id, 3, 1, getters[2], 3, None) for id in ids[115:118]),
        (ids[118], 3, 1, getters[3], 4, None),
    ]
    assert rows[54:] == [(id, 0, 0, None, None, None) for id in ids[119:]]
    large = engine._database.execute("select id from large order by id").fetchall()
    assert large == [(id,) for id, value in zip(ids[65:], values[65:]) if len(value) > 1000]
    engine.close()


@pytest.mark.parametrize("is_new", [True, False])
def test_items_beyond_those_in_memory_are_given_in_order(tmp_path: Path, is_new: bool) -> None:
    """Small and large ones, of several puts and priorities, in the batch that has put them, and in the next keeper."""
    values = [b"%d" % n + b"x" * (3000 if n % 7 == 0 else 10) for n in range(3000)]
    engine = opened(tmp_path)
    puts = [Put("jobs", values[at : at + 500], PUTTER, at + 1, priority=at // 2000) for at in range(0, 3000, 500)]
    puts += [Put("jobs", [b"last"]), Put("jobs", [b"first"], priority=9)]
    stats = engine.run([*puts, Stats("jobs")]).answers[-1]
    expected = [b"first", *values[2000:], *values[:2000], b"last"]
    assert (stats["ready"], stats["bytes"]) == (len(expected), sum(map(len, expected)))
    if is_new:
        engine.close()
        engine = opened(tmp_path)
    gets = [Get("jobs", GETTER, 700) for _ in range(5)]
    given = [item for answer in engine.run(gets).answers for item in answer]
    assert [item.value for item in given] == expected
    assert engine.run([Ack("jobs", [(item.id, 1) for item in given]), Stats("jobs")]).answers[1]["bytes"] == 0
    engine.close()


def test_items_that_are_put_and_taken_in_one_batch_come_from_the_file(tmp_path: Path) -> None:
    """More of them than are kept in memory."""
    values = [b"%d" % n for n in range(3000)]
    engine = opened(tmp_path)
    put, first, second, gone = engine.run(
        [Put("jobs", values), Get("jobs", GETTER, 2000), Get("jobs", GETTER, 2000), Purge("jobs")]
    ).answers
    assert [item.value for item in [*first, *second]] == values
    assert ([item.id for item in [*first, *second]], gone) == (put, 0)
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


def test_a_damaged_page_is_told_with_what_to_do(tmp_path: Path) -> None:
    """While it runs, or when it opens the file."""
    engine = opened(tmp_path)
    for seq in range(1, 30):
        engine.run([Put("jobs", [b"x" * 900] * 20, PUTTER, seq)])
    engine.run([Get("jobs", GETTER, 1)])
    while engine.keep_up():
        pass
    engine.close()
    path = tmp_path / "queues.db"
    with path.open("r+b") as file:
        for page in range(25, path.stat().st_size // 4096):  # behind the tables and indexes that are read at the start
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    with pytest.raises((EngineFailed, StartError), match=r"queues\.db is damaged .*\.recover"):
        opened(tmp_path).run([Get("jobs", GETTER, 600)])


FAILING = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>
static int fails(void) { return access(FLAG, F_OK) == 0; }
int fsync(int fd) { (void)fd; if (fails()) { errno = EIO; return -1; } return 0; }
int fdatasync(int fd) { (void)fd; if (fails()) { errno = EIO; return -1; } return 0; }
"""
PUTS = """
import pathlib, sys
sys.path.insert(0, {checkout!r})
from rpccluster.errors import EngineFailed
from rpccluster.queues.engine import Put, Rules
from rpccluster.queues.sqlite import SQLiteEngine
engine = SQLiteEngine({path!r})
engine.configure({{"jobs": Rules()}}, None)
engine.open()
print(engine.run([Put("jobs", [b"x"], b"p" * 16, 1)]).answers, flush=True)
pathlib.Path({flag!r}).touch()
try:
    print(engine.run([Put("jobs", [b"y"], b"p" * 16, 2)]).answers)
except EngineFailed as error:
    print(error)
"""


def test_a_failed_fsync_ends_the_keeper(tmp_path: Path) -> None:
    """What was answered is there; what was not answered may be, and a repeat does not double it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    flag, library, path = tmp_path / "fails", tmp_path / "failing.so", tmp_path / "queues.db"
    source = tmp_path / "failing.c"
    source.write_text(FAILING.replace("FLAG", f'"{flag}"'))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    program = PUTS.format(checkout=str(CHECKOUT), path=str(path), flag=str(flag))
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    first, second = told.stdout.splitlines()
    assert first == "[[2]]"
    assert "disk I/O error" in second
    flag.unlink()
    engine = opened(tmp_path)
    [again, stats] = engine.run([Put("jobs", [b"y"], PUTTER, 2), Stats("jobs")]).answers
    assert again in ([3], [4])
    assert stats["ready"] == 2
    engine.close()


def test_time_goes_on_over_restarts_and_boots() -> None:
    """By the clock of the boot, or by the wall clock between two boots; never backwards."""
    booted, wall = [100.0], [5000.0]
    time = Timescale(None, "one", lambda: booted[0], lambda: wall[0])
    booted[0], wall[0] = 160.0, 1.0  # an hour back, say
    assert time.now() == 160.0
    kept = time.keep()
    booted[0] = 170.0
    assert Timescale(kept, "one", lambda: booted[0], lambda: wall[0]).now() == 170.0
    booted[0], wall[0] = 3.0, 31.0
    assert Timescale(kept, "two", lambda: booted[0], lambda: wall[0]).now() == 190.0
    wall[0] = -1000.0
    assert Timescale(kept, "two", lambda: booted[0], lambda: wall[0]).now() == 160.0


def test_what_was_purged_leaves_the_file(tmp_path: Path) -> None:
    """The upkeep removes it in steps, and the file shrinks again; what is leased stays."""
    engine = opened(tmp_path)
    engine.run([Put("jobs", [b"x" * 500] * 3000 + [b"y" * 5000] * 100, PUTTER, 1), Get("jobs", GETTER)])
    while engine.keep_up():
        pass
    full = (tmp_path / "queues.db").stat().st_size
    assert engine.run([Purge("jobs")]).answers == [3099]
    engine.run([Put("jobs", [b"z"], PUTTER, 2)])
    while engine.keep_up():
        pass
    assert (tmp_path / "queues.db").stat().st_size < full / 2
    stats, got = engine.run([Stats("jobs"), Get("jobs", GETTER, 9)]).answers
    assert (stats["ready"], stats["leased"]) == (1, 1)
    assert [item.value for item in got] == [b"z"]
    engine.close()


def test_durable_second_syncs_within_a_second(tmp_path: Path) -> None:
    """The engine asks to be run again, and that run syncs."""
    engine = SQLiteEngine(str(tmp_path / "queues.db"), "second")
    engine.configure({"jobs": Rules()}, None)
    engine.open()
    outcome = engine.run([Put("jobs", [b"x"], PUTTER, 1)])
    assert outcome.wake_in is not None and 0 < outcome.wake_in <= 1
    engine._unsynced_from -= 1
    outcome = engine.run([])
    assert outcome.wake_in is None
    assert engine.run([]).wake_in is None
    engine.close()


def test_ten_thousand_leases_end_at_their_time(tmp_path: Path) -> None:
    """However many pieces they end in, no ack counts after the end of its lease."""
    now = [1000.0]
    engine = SQLiteEngine(
        str(tmp_path / "queues.db"), "os", make_time=lambda kept, boot: Timescale(None, "", lambda: now[0])
    )
    engine.configure({"jobs": Rules(lease=10)}, None)
    engine.open()
    taken = engine.run([Put("jobs", [b"x"] * 10_000, PUTTER, 1), Get("jobs", GETTER, 10_000)]).answers[1]
    assert engine.run([]).wake_in == 10
    now[0] += 10
    outcome = engine.run([Ack("jobs", [item[:2]]) for item in taken[::100]])
    assert all(isinstance(answer, LeaseLost) for answer in outcome.answers)
    pieces = 1
    while outcome.wake_in == 0:
        outcome = engine.run([])
        pieces += 1
    assert outcome.wake_in is None
    assert pieces <= 21
    assert engine.run([Stats("jobs")]).answers[0]["ready"] == 10_000
    engine.close()


def test_a_disk_that_is_full_for_the_upkeep_only_puts_it_off(tmp_path: Path) -> None:
    """A commit before it is a commit, and the keeper goes on."""
    engine = opened(tmp_path)
    engine.run([Put("jobs", [b"x"], PUTTER, 1)])
    done: list[str] = []

    def step(now: float, *, is_idle: bool) -> bool:
        done.append("tried")
        raise sqlite3.OperationalError("database or disk is full")

    engine._upkeep.step = step  # type: ignore[method-assign]
    assert engine.keep_up() is False
    assert done == ["tried"]
    assert engine.run([Stats("jobs")]).answers[0]["ready"] == 1
    engine.close()
