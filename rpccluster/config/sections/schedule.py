"""Checks the schedule of a plugin: five fields of cron, and a time zone. Any process.

cronsim reads the fields; it is imported only for a plugin that has a schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from rpccluster.config.checks import Complaint
from rpccluster.config.values import shown

__all__ = ["check_schedule", "check_timezone"]

_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_INSTALL = "pip install 'rpccluster[schedule]'"
_A_DAY = datetime(2000, 1, 1)


def check_schedule(key: str, text: str) -> Iterator[Complaint]:
    """Complain of a schedule that cron could not read, or that cronsim is not there to read."""
    fields = text.split()
    if len(fields) != len(_FIELDS):  # cronsim takes six as seconds
        problem = f"found {shown(text)}, which has {len(fields)} fields, expected five: {', '.join(_FIELDS)}"
        yield Complaint((key,), problem)
        return
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        yield Complaint((key,), f"found {shown(text)} where cronsim is missing, expected it: {_INSTALL}")
        return

    def is_readable(fields: list[str]) -> bool:
        try:
            CronSim(" ".join(fields), _A_DAY)
        except CronSimError:
            return False
        return True

    every = ["*"] * len(_FIELDS)
    faulty = [at for at, field in enumerate(fields) if not is_readable([*every[:at], field, *every[at + 1 :]])]
    for at in faulty:
        yield Complaint((key,), f"found {fields[at]!r} as the {_FIELDS[at]} in {shown(text)}, expected what cron reads")
    if not faulty and not is_readable(fields):
        yield Complaint((key,), f"found {shown(text)}, expected days that exist: no month has such a one")


def check_timezone(key: str, name: str) -> Iterator[Complaint]:
    """Complain of a time zone that this machine does not know."""
    from zoneinfo import ZoneInfo  # late, as few configurations need it

    try:
        ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError):
        yield Complaint((key,), f"found {name!r}, expected a time zone of this machine, such as Europe/Berlin")
