#!/usr/bin/env bash
# billiard 4.3.0, CPython 3.11: `apply_async(function, args, timeout=0.3)` takes the limit of one task, as its docstring
# says. A `Pool` that was made without `enable_timeouts=True`, or without limits of its own, drops it in silence: the
# task runs to its end and its result comes, as if no limit had been given. With `enable_timeouts=True` the same call
# raises TimeLimitExceeded, wrapped with its traceback.
#
# Seen:
#   Pool(1): slept to the end
#   Pool(1, enable_timeouts=True): TimeLimitExceeded(0.3)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'billiard==4.3.0' 2>/dev/null
cat > "$folder/program.py" <<'PYTHON'
import time

from billiard.pool import Pool


def sleep(seconds):
    time.sleep(seconds)
    return "slept to the end"


for text, options in (("Pool(1)", {}), ("Pool(1, enable_timeouts=True)", {"enable_timeouts": True})):
    pool = Pool(1, **options)
    try:
        outcome = pool.apply_async(sleep, (3,), timeout=0.3).get(20)
    except Exception as error:
        outcome = repr(getattr(error, "exc", error))  # it comes with its traceback, in a wrapper
    print(f"{text}: {outcome}", flush=True)
    pool.terminate()
PYTHON
found=$("$folder/venv/bin/python" "$folder/program.py" 2>/dev/null)
echo "$found"
[ "$found" = "Pool(1): slept to the end
Pool(1, enable_timeouts=True): TimeLimitExceeded(0.3)" ]
