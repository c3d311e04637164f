#!/usr/bin/env bash
# cronsim 2.8, CPython 3.11: asked for the next run after a time in the second pass of the hour that a change to winter
# time repeats, it answers with the run of the first pass, 40 minutes before the time it was asked for, if minute and
# hour are fixed (`30 2 * * *`). With a wildcard hour (`30 * * * *`) it answers with the second pass. The answer is an
# aware datetime and compares as later than the question, since Python compares two times of one zone by their wall
# clock: only in UTC one sees that it is past. A scheduler that starts anew in that hour would run the job a second time.
#
# Seen:
#   30 2 * * *: asked at 02:10 (01:10 UTC), answered 02:30 (00:30 UTC), later by comparison: True
#   30 * * * *: asked at 02:10 (01:10 UTC), answered 02:30 (01:30 UTC), later by comparison: True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'cronsim==2.8' 'tzdata==2025.2' 2>/dev/null
found=$("$folder/venv/bin/python" - <<'PYTHON'
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from cronsim import CronSim

asked = datetime(2025, 10, 26, 1, 10, tzinfo=timezone.utc).astimezone(ZoneInfo("Europe/Berlin"))


def both(time):
    return f"{time:%H:%M} ({time.astimezone(timezone.utc):%H:%M} UTC)"


for fields in ("30 2 * * *", "30 * * * *"):
    answered = next(CronSim(fields, asked))
    print(f"{fields}: asked at {both(asked)}, answered {both(answered)}, later by comparison: {answered > asked}")
PYTHON
)
echo "$found"
[ "$found" = "30 2 * * *: asked at 02:10 (01:10 UTC), answered 02:30 (00:30 UTC), later by comparison: True
30 * * * *: asked at 02:10 (01:10 UTC), answered 02:30 (01:30 UTC), later by comparison: True" ]
