#!/usr/bin/env bash
# fasteners 0.20, CPython 3.11: an `InterProcessLock` is gone once its process closes an `mmap.mmap` of the same file,
# though every descriptor that the program knows stays open, and munmap(2) touches no lock. An mmap object holds a
# duplicate of the descriptor and closes it with itself, and a POSIX record lock ends with any close of the file in its
# process. The lock still says that it is acquired. (From Python 3.13 on, `trackfd=False` makes no duplicate.)
#
# Seen:
#   locked: another process gets it: False
#   mapped: another process gets it: False
#   mmap closed: another process gets it: True
#   the first lock says acquired: True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'fasteners==0.20' 2>/dev/null
found=$("$folder/venv/bin/python" - "$folder/counters" <<'PYTHON'
import mmap
import subprocess
import sys

import fasteners

path = sys.argv[1]
with open(path, "wb") as file:
    file.truncate(mmap.PAGESIZE)
OTHER = "import fasteners, sys; print(fasteners.InterProcessLock(sys.argv[1]).acquire(blocking=False))"


def tell(when):
    other = subprocess.run([sys.executable, "-c", OTHER, path], capture_output=True, text=True, check=True)
    print(f"{when}: another process gets it: {other.stdout.strip()}")


lock = fasteners.InterProcessLock(path)
lock.acquire()
tell("locked")
file = open(path, "r+b")
counters = mmap.mmap(file.fileno(), 0)
tell("mapped")
counters.close()  # `file` is still open
tell("mmap closed")
print("the first lock says acquired:", lock.acquired)
PYTHON
)
echo "$found"
[ "$found" = "locked: another process gets it: False
mapped: another process gets it: False
mmap closed: another process gets it: True
the first lock says acquired: True" ]
