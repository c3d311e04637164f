"""Descriptors: their limit, who is at the other end, what is told to systemd, and pipes that nobody reads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rpccluster import system
from rpccluster.system import peer_process


def run(program: str) -> str:
    """What ``program`` prints, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_descriptor_limit_is_raised_as_far_as_it_may_be() -> None:
    """For so many connections and what a process needs beside them; never lowered, never above the hard limit."""
    program = (
        "import resource; from rpccluster.system import make_room_for\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (300, 1000))\n"
        "print(make_room_for(10), make_room_for(200), make_room_for(100), make_room_for(9999))\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert run(program).split() == ["300", "456", "456", "1000", "1000", "1000"]


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool) -> None:
    """At the socket it named, a path or an abstract name: sd_notify(3)."""
    name = f"\0rpccluster-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        system.notify_systemd("READY=1\nMAINPID=5")
        systemd.settimeout(10)
        assert systemd.recv(100) == b"READY=1\nMAINPID=5"


def test_without_systemd_nobody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a socket that is gone an error."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    system.notify_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    system.notify_systemd("READY=1")


def test_a_peer_is_known_by_pid_and_uid() -> None:
    """As the kernel tells."""
    one, other = socket.socketpair()
    with one, other:
        assert peer_process(one) == (os.getpid(), os.geteuid())


def test_a_write_to_a_pipe_that_nobody_reads_is_an_error_and_no_signal() -> None:
    """Whatever SIGPIPE is set to; where it was blocked it stays so."""
    program = (
        "import os, signal; from rpccluster import system\n"
        "read_end, write_end = os.pipe()\n"
        "assert system.write(write_end, b'abc') == 3\n"
        "os.close(read_end)\n"
        "for handler in (signal.SIG_DFL, signal.SIG_IGN):\n"
        "    signal.signal(signal.SIGPIPE, handler)\n"
        "    for blocked in (set(), {signal.SIGPIPE}):\n"
        "        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)\n"
        "        try: system.write(write_end, b'abc')\n"
        "        except BrokenPipeError: print('an error')\n"
        "        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked\n"
    )
    assert run(program).split("\n") == ["an error"] * 4
