#!/usr/bin/env bash
# gevent 26.9.0, greenlet 3.5.6, CPython 3.11: in a process patched by `monkey.patch_all()`, a `threading.Thread`
# that is made in a greenlet is a daemon, though nobody asked for it. `threading.Thread` takes `daemon` from the current
# thread; in a greenlet that is a stand-in (`_DummyThread`), and these are daemons. The same code in the main greenlet
# makes a thread that Python waits for at its end. So what a request handler hands to such a thread is lost at exit.
#
# Seen:
#   main greenlet: False
#   spawned greenlet: True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'gevent==26.9.0' 'greenlet==3.5.6' 2>/dev/null
found=$("$folder/venv/bin/python" - <<'PYTHON'
from gevent import monkey

monkey.patch_all()
import threading

import gevent


def is_daemon():
    return threading.Thread(target=print).daemon


print("main greenlet:", is_daemon())
print("spawned greenlet:", gevent.spawn(is_daemon).get())
PYTHON
)
echo "$found"
[ "$found" = "main greenlet: False
spawned greenlet: True" ]
