#!/usr/bin/env bash
# PyPy 7.3.11 (Debian's pypy3 7.3.11+dfsg-2+deb12u3, Python 3.9) beside CPython 3.11: a server hands a listening socket
# to another process or module, which wraps the descriptor: `socket.socket(fileno=number)`. CPython leaves the mode of
# the descriptor as it was. PyPy sets it to blocking. That flag belongs to the open file, which all duplicates of it
# share, in other processes, too: a loop that relies on `accept` not to wait is held up by a sibling that merely looked
# at the socket. `socket.fromfd` does the same; its documentation speaks of an assumption, not of a change.
#
# Seen (whether the first descriptor blocks, before and after another one of the same open file is wrapped):
#   CPython: False, then False
#   PyPy: False, then True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
version='7.3.11+dfsg-2+deb12u3'
apt-get download -qq "pypy3=$version" "pypy3-lib=$version" 2>/dev/null
for package in pypy3*.deb; do dpkg -x "$package" root; done
cat > program.py <<'PYTHON'
import os
import socket
import sys

listener = socket.create_server(("127.0.0.1", 0))
listener.setblocking(False)
before = os.get_blocking(listener.fileno())
sibling = socket.socket(fileno=os.dup(listener.fileno()))
name = {"cpython": "CPython", "pypy": "PyPy"}[sys.implementation.name]
print(f"{name}: {before}, then {os.get_blocking(listener.fileno())}")
PYTHON
found=$(python3 program.py; root/usr/bin/pypy3 program.py)
echo "$found"
test "$found" = "CPython: False, then False
PyPy: False, then True"
