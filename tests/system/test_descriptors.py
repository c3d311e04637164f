"""Descriptors: their limit, who is at the other end, and pipes that nobody reads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

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


def test_what_may_be_held_beside_leaves_enough_for_the_rest() -> None:
    """All but what is asked for; half where that is more; and at a low limit less than that, or nothing."""
    program = (
        "import resource; from rpccluster.system import room_beside\n"
        "for soft in (4000, 1600, 400, 300, 64):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, 4000))\n"
        "    print(room_beside(1000))\n"
    )
    assert run(program).split() == ["3000", "800", "100", "0", "0"]


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
