"""When a scheduled group runs: five fields of cron, in a time zone. Pure, with the clock passed in; runs in the master.

The rules are Debian's, as cronsim follows them. A run at a fixed time that the clock leaves out in spring comes at the
end of the gap; one at a time that comes twice in autumn runs at the first pass alone. A schedule of every so many
minutes or hours follows the clock. If both days are given, either is enough, unless one field begins with a star.

A run that is missed is not made up, because the master was not there, or stood still, or the clock was set past it. So
what cronsim answers counts only if it is later than now in UTC: for a master that is started in the second pass of an
hour it would name the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo

__all__ = ["Schedule", "Timetable"]

MOST_LATE = timedelta(minutes=1)  # a run that could not begin by then was missed
SET_BACK = timedelta(hours=3)  # more than this is no correction of the clock, but another time: as cron(8) has it


class Schedule:
    """The times of one schedule."""

    def __init__(self, fields: str, zone: tzinfo) -> None:
        """``fields`` are five, and right: the configuration has been checked."""
        self.fields = fields
        self.zone = zone

    def next_after(self, now: datetime) -> datetime | None:
        """Return the first time later than ``now``, both in UTC; None if there is none for decades."""
        return next((time for time in self._times(now) if time > now), None)

    def _times(self, now: datetime) -> Iterator[datetime]:
        from cronsim import CronSim  # of the extra ``schedule``

        for time in CronSim(self.fields, now.astimezone(self.zone)):
            yield time.astimezone(timezone.utc)


class Timetable:
    """The next run of one schedule, from the first look at the clock on."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.next_at: datetime | None = None
        self._looked_at: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        """Return whether a run begins at ``now`` (in UTC), once for each run."""
        if self._looked_at is None or now < self._looked_at - SET_BACK:
            self.next_at = self.schedule.next_after(now)
        self._looked_at = now
        if self.next_at is None or now < self.next_at:
            return False
        late, self.next_at = now - self.next_at, self.schedule.next_after(now)
        return late < MOST_LATE

    def seconds_left(self, now: datetime) -> float:
        """Return the seconds until the next run; infinity if there is none."""
        return float("inf") if self.next_at is None else max(0.0, (self.next_at - now).total_seconds())
