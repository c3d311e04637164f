#!/usr/bin/env bash
# gevent 26.9.0 (since 25.8.1), greenlet 3.5.6, CPython 3.11: in a process patched by `monkey.patch_all()`, `os.close` of
# a pipe or a socket returns while the descriptor is still open, once the hub is in use; it is closed when the loop has
# polled next. So the other end is not at its end yet, a child that is forked by then inherits the descriptor, and
# the lowest free number is another one than before. Without a hub, and for a regular file, it is closed at once.
#
# Seen:
#   no hub yet: b''
#   closed: nothing to read yet
#   forked then: the child has it
#   after a turn: b''
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'gevent==26.9.0' 'greenlet==3.5.6' 2>/dev/null
found=$("$folder/venv/bin/python" - <<'PYTHON'
from gevent import monkey

monkey.patch_all()
import os

import gevent


def read(end):
    try:
        return os.read(end, 1)
    except BlockingIOError:
        return "nothing to read yet"


def pipe():
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    return read_end, write_end


read_end, write_end = pipe()
os.close(write_end)
print("no hub yet:", read(read_end))
gevent.sleep(0)
read_end, write_end = pipe()
os.close(write_end)
print("closed:", read(read_end))
pid = os.fork()
if pid == 0:
    try:
        os.fstat(write_end)
    except OSError:
        os._exit(1)
    os._exit(0)
print("forked then:", "the child does not have it" if os.waitpid(pid, 0)[1] else "the child has it")
gevent.sleep(0.01)
print("after a turn:", read(read_end))
PYTHON
)
echo "$found"
[ "$found" = "no hub yet: b''
closed: nothing to read yet
forked then: the child has it
after a turn: b''" ]
