#!/usr/bin/env bash
# gevent 26.9.0, greenlet 3.5.6, CPython 3.11: a signal handler that raises SystemExit, as many programs end at TERM, ends
# a program with native threads: Python runs handlers in the main thread alone. In a process patched by
# `monkey.patch_all()` threads are greenlets of the main thread, and the exception comes up in the one that happens to
# run. If that is a `threading.Thread`, threading takes SystemExit for its wish to end and says nothing: the thread is
# gone, the main greenlet goes on, and the signal has had no effect.
#
# Seen:
#   threads: the thread goes on, the main one is told to end
#   greenlets: the main one slept on
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'gevent==26.9.0' 'greenlet==3.5.6' 2>/dev/null
cat > "$folder/program.py" <<'PYTHON'
import sys

if sys.argv[1] == "greenlets":
    from gevent import monkey

    monkey.patch_all()
import os
import signal
import threading
import time

seen = []


def end(signum, frame):
    raise SystemExit


def work():
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(1000):
        pass
    seen.append("the thread goes on")


signal.signal(signal.SIGUSR1, end)
thread = threading.Thread(target=work)
thread.start()
try:
    time.sleep(1)
    seen.append("the main one slept on")
except SystemExit:
    thread.join()
    seen.append("the main one is told to end")
print(f"{sys.argv[1]}: {', '.join(seen)}")
PYTHON
found=$(for how in threads greenlets; do "$folder/venv/bin/python" "$folder/program.py" "$how"; done)
echo "$found"
[ "$found" = "threads: the thread goes on, the main one is told to end
greenlets: the main one slept on" ]
