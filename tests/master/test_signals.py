"""Signals to the master: noted in order, a descriptor wakes the loop, nothing is left for the next program."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from rpccluster.master.signals import HANDLED

PROGRAM = """
import os, select, signal
from rpccluster.master.signals import HANDLED, SignalInbox, reset_for_exec
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
inbox = SignalInbox()
"""


def run(program: str) -> list[str]:
    """What ``program`` prints, in a process of its own: handlers belong to a process."""
    done = subprocess.run([sys.executable, "-c", PROGRAM + program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_signals_are_noted_in_their_order_and_taken_once() -> None:
    """The descriptor turns readable, `drain` empties it, `take` gives the numbers."""
    shown = run(
        "for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):\n"
        "    os.kill(os.getpid(), signum)\n"
        "print(len(select.select([inbox], [], [], 5)[0]))\n"
        "inbox.drain()\n"
        "print(len(select.select([inbox], [], [], 0)[0]))\n"
        "print(*inbox.take())\n"
        "print(inbox.take())\n"
    )
    numbers = [signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD]  # equal ones that wait are one
    assert shown == ["1", "0", *(str(int(number)) for number in numbers), "[]"]


@pytest.mark.parametrize("signum", HANDLED, ids=lambda signum: signum.name)
def test_every_signal_of_the_contract_is_caught(signum: signal.Signals) -> None:
    """None ends the master by itself."""
    program = f"os.kill(os.getpid(), {int(signum)})\nwith inbox.waiting():\n    select.select([inbox], [], [], 5)\n"
    assert run(program + "print(*inbox.take())") == [str(int(signum))]


def test_ttou_is_let_in_only_while_nothing_is_written() -> None:
    """Or each line written to a terminal that stops writers would be one more."""
    shown = run(
        "os.kill(os.getpid(), signal.SIGTTOU)\nprint(*inbox.take(), 0)\nwith inbox.waiting():\n    pass\n"
        "print(*inbox.take())\nprint(signal.SIGTTOU in signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
    )
    assert shown == ["0", str(int(signal.SIGTTOU)), "True"]


def test_a_flood_of_signals_blocks_nobody() -> None:
    """A full wake-up pipe is full: the loop is awake anyway, and none is forgotten."""
    shown = run(
        "for _ in range(100_000):\n    os.kill(os.getpid(), signal.SIGWINCH)\ninbox.drain()\nprint(len(inbox.take()))\n"
    )
    assert shown == ["1"]


def test_nothing_is_left_for_the_next_program() -> None:
    """Handlers, mask and wake-up descriptor: a blocked or ignored signal would stay so across an exec."""
    shown = run(
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "reset_for_exec()\n"
        "print(signal.set_wakeup_fd(-1))\n"
        "print(len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))\n"
        "print({signal.getsignal(signum) for signum in HANDLED} == {signal.SIG_DFL})\n"
    )
    assert shown == ["-1", "0", "True"]
