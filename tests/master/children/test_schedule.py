"""When a schedule's runs begin, by a made-up clock: over both changes of the clock, after a restart, and when late."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from rpccluster.master.children.schedule import MOST_LATE, Schedule, Timetable

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def runs(fields: str, begin: str, end: str, *, restarts: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the runs of a master that looks at the clock each minute, and is started anew at ``restarts`` (UTC)."""
    schedule, now = Schedule(fields, BERLIN), utc(begin)
    table = Timetable(schedule)
    starts = [utc(each) for each in restarts]
    while now < utc(end):
        if now in starts:
            table = Timetable(schedule)
        if table.is_due(now):
            yield now.astimezone(BERLIN).isoformat(sep=" ")
        now += MINUTE


SPRING = ("2026-03-29 00:00", "2026-03-29 03:00")  # from 02:00 to 03:00 there is no time: at 01:00 UTC
AUTUMN = ("2026-10-24 23:00", "2026-10-25 04:00")  # from 02:00 to 03:00 is twice: until 01:00 UTC, and until 02:00


def test_every_minute_is_every_minute_over_both_changes() -> None:
    """It follows the clock; none is left out, and none doubled."""
    for begin, end in (SPRING, AUTUMN):
        found = list(runs("* * * * *", begin, end))
        assert len(found) == len(set(found)) == (utc(end) - utc(begin)) / MINUTE - 1


def test_a_time_in_the_gap_comes_at_its_end() -> None:
    """In spring, as Debian's cron has it."""
    assert list(runs("30 2 * * *", *SPRING)) == ["2026-03-29 03:00:00+02:00"]


def test_a_time_that_comes_twice_runs_once() -> None:
    """In autumn, in the first pass."""
    assert list(runs("30 2 * * *", *AUTUMN)) == ["2026-10-25 02:30:00+02:00"]


def test_a_master_that_is_started_in_the_second_pass_does_not_run_it_again() -> None:
    """At 02:10 of the second pass: one run that day."""
    begin, end = "2026-10-24 23:00", "2026-10-26 00:00"
    assert list(runs("30 2 * * *", begin, end, restarts=("2026-10-25 01:10",))) == ["2026-10-25 02:30:00+02:00"]


def test_hours_with_a_star_follow_the_clock() -> None:
    """Not at all in the gap, twice in the fold."""
    assert list(runs("*/30 2 * * *", *SPRING)) == []
    assert len(list(runs("*/30 2 * * *", *AUTUMN))) == 4


def test_both_days_are_either_or_unless_one_begins_with_a_star() -> None:
    """As in cron's manual."""
    month = ("2026-06-01 00:00", "2026-07-01 00:00")
    assert len(list(runs("0 12 1 * MON", *month))) == 5
    assert len(list(runs("0 12 */1 * MON", *month))) == 5
    assert len(list(runs("0 12 13 * MON", *month))) == 6


def test_a_run_is_due_once() -> None:
    """However often the clock is looked at; the next one is known at once."""
    table = Timetable(Schedule("30 2 * * *", timezone.utc))
    assert not table.is_due(utc("2026-01-01 02:29:59"))
    assert table.seconds_left(utc("2026-01-01 02:29:59")) == 1.0
    assert table.is_due(utc("2026-01-01 02:30:00"))
    assert not table.is_due(utc("2026-01-01 02:30:00"))
    assert table.seconds_left(utc("2026-01-01 02:30:00")) == 86400.0


def test_what_is_missed_is_not_made_up() -> None:
    """By a master that stood still; nor does a small delay lose a run."""
    table = Timetable(Schedule("30 2 * * *", timezone.utc))
    table.is_due(utc("2026-01-01 00:00"))
    assert not table.is_due(utc("2026-01-01 02:30") + MOST_LATE)
    assert table.next_at == utc("2026-01-02 02:30")
    assert table.is_due(utc("2026-01-02 02:30") + MOST_LATE - timedelta(seconds=1))


def test_a_clock_that_is_corrected_repeats_nothing_and_another_time_counts_anew() -> None:
    """An hour back is a correction; days are not."""
    table = Timetable(Schedule("30 2 * * *", timezone.utc))
    table.is_due(utc("2026-01-10 02:00"))
    assert table.is_due(utc("2026-01-10 02:30"))
    assert not table.is_due(utc("2026-01-10 01:31"))
    assert not table.is_due(utc("2026-01-10 02:30"))
    assert not table.is_due(utc("2026-01-05 02:00"))
    assert table.is_due(utc("2026-01-05 02:30"))
