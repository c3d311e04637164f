"""Children and signals: what Python does not wrap of fork, kill, wait and prctl."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rpccluster.system import Deadline, Exit, System


def run(program: str) -> str:
    """What ``program`` prints, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("status", "exit_", "text"),
    [
        (0, Exit(5, 0, None), "exit code 0"),
        (3 << 8, Exit(5, 3, None), "exit code 3"),
        (9, Exit(5, None, 9), "signal SIGKILL"),
        (11 | 128, Exit(5, None, 11), "signal SIGSEGV"),
        (40, Exit(5, None, 40), "signal 40"),
    ],
)
def test_an_exit_is_read_from_what_waitpid_says(status: int, exit_: Exit, text: str) -> None:
    """A code or a signal, and how the log says it."""
    assert Exit.from_status(5, status) == exit_
    assert str(exit_) == text


def test_every_dead_child_is_reaped_once() -> None:
    """However many at once; those that live are left alone."""
    program = (
        "import os, signal, time; from rpccluster.system import System\n"
        "s = System(); pids = []\n"
        "for code in range(5):\n"
        "    pid = s.fork()\n"
        "    if pid == 0: os._exit(code)\n"
        "    pids.append(pid)\n"
        "alive = s.fork()\n"
        "if alive == 0: time.sleep(60); os._exit(0)\n"
        "found = []\n"
        "while len(found) < 5: found += s.reap()\n"
        "assert sorted((e.pid, e.code) for e in found) == sorted(zip(pids, range(5))), found\n"
        "assert s.reap() == []\n"
        "s.kill(alive, signal.SIGKILL)\n"
        "while not (last := s.reap()): pass\n"
        "assert [(e.pid, e.signal) for e in last] == [(alive, 9)]\n"
        "assert s.reap() == []\n"
        "s.kill(alive, signal.SIGKILL)\n"
        "print('fine')"
    )
    assert run(program) == "fine"


def test_signals_are_blocked_in_a_forked_child_and_free_in_the_parent() -> None:
    """One that comes between the fork and the child's own handlers would run the parent's."""
    program = (
        "import os, signal; from rpccluster.system import System\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "pid = System().fork()\n"
        "mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "if pid == 0: os._exit(0 if {signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD} <= mask else 1)\n"
        "print(os.waitpid(pid, 0)[1], mask == {signal.SIGUSR1})"
    )
    assert run(program) == "0 True"


def test_a_child_dies_with_its_parent() -> None:
    """By the kernel's hand, without a word from anybody."""
    program = (
        "import os, time; from rpccluster.system import die_with_parent\n"
        "parent = os.getpid(); read_end, write_end = os.pipe(); pid = os.fork()\n"
        "if pid == 0:\n"
        "    die_with_parent(parent); os.write(write_end, b'.'); time.sleep(60)\n"
        "os.read(read_end, 1); print(pid, flush=True); os.kill(parent, 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == -signal.SIGKILL
    _wait_until_gone(int(done.stdout))


def _wait_until_gone(pid: int) -> None:
    deadline = Deadline.after(10.0)
    while not deadline.is_over():
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} lives")


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    """The kernel tells nobody of a death before the asking."""
    program = (
        "import os; from rpccluster.system import die_with_parent\n"
        "pid = os.fork()\n"
        "if pid == 0: die_with_parent(os.getppid() + 1); os._exit(7)\n"
        "print(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))"
    )
    assert run(program) == "1"


def test_a_title_is_what_others_see() -> None:
    """In /proc, where ps(1) looks."""
    program = (
        "from rpccluster.system import set_title; set_title('rpccluster: x [y]'); "
        "print(open('/proc/self/cmdline').read())"
    )
    assert run(program).strip("\0") == "rpccluster: x [y]"


def test_the_system_is_what_it_says() -> None:
    """The master's view of it is passed in, so that tests can pass another."""
    assert System().getpid() == os.getpid()
    before = time.monotonic()
    assert before <= System().monotonic() <= time.monotonic()


def test_the_group_of_a_dead_leader_is_killed_before_the_leader_is_reaped() -> None:
    """Only of those that are said to lead one; members of other groups live on."""
    program = (
        "import os, signal, time; from rpccluster.system import System\n"
        "def lead():\n"
        "    read_end, write_end = os.pipe()\n"
        "    leader = os.fork()\n"
        "    if leader == 0:\n"
        "        os.setpgid(0, 0)\n"
        "        member = os.fork()\n"
        "        if member == 0: time.sleep(60)\n"
        "        os.write(write_end, str(member).encode()); os._exit(3)\n"
        "    return leader, int(os.read(read_end, 20))\n"
        "def lives(pid):\n"
        "    try: state = open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[0]\n"
        "    except OSError: return False\n"
        "    return state != 'Z'\n"
        "ours, theirs = lead(), lead()\n"
        "exits, until = [], time.monotonic() + 10\n"
        "while len(exits) < 2 and time.monotonic() < until:\n"
        "    exits += System().reap({ours[0]})\n"
        "while lives(ours[1]) and time.monotonic() < until: time.sleep(0.01)\n"
        "print(sorted(e.code for e in exits), lives(ours[1]), lives(theirs[1]))\n"
        "os.kill(theirs[1], signal.SIGKILL)\n"
    )
    assert run(program) == "[3, 3] False True"


def test_a_leader_that_has_left_its_group_is_signalled_with_it() -> None:
    """A group without it has its number as long as others are in there."""
    program = (
        "import os, signal, time; from rpccluster.system import System\n"
        "read_end, write_end = os.pipe()\n"
        "leader = os.fork()\n"
        "if leader == 0:\n"
        "    os.setpgid(0, 0)\n"
        "    if os.fork() == 0: time.sleep(60)\n"
        "    os.setpgid(0, os.getpgid(os.getppid()))\n"
        "    os.write(write_end, b'.'); time.sleep(60)\n"
        "os.read(read_end, 1)\n"
        "System().kill_group(leader, signal.SIGTERM)\n"
        "exits, until = [], time.monotonic() + 10\n"
        "while not exits and time.monotonic() < until: exits = System().reap()\n"
        "print([each.signal for each in exits] or os.kill(leader, signal.SIGKILL))\n"
    )
    assert run(program) == "[15]"


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="only who can look sees that nobody has ended")
def test_who_ends_after_the_look_is_left_for_the_next() -> None:
    """Else its group would live on."""
    program = (
        "import os; from rpccluster.system.processes import process\n"
        "pid, look = os.fork(), process._next_dead\n"
        "if pid == 0: os._exit(3)\n"
        "os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)\n"
        "process._next_dead = lambda: 0\n"
        "early = process.System().reap({pid})\n"
        "process._next_dead = look\n"
        "print(early, [each.code for each in process.System().reap()])"
    )
    assert run(program) == "[] [3]"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENXIO], ids=os.strerror)
def test_without_room_to_look_there_may_be_a_terminal(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Its window's new size is not to drain a cluster."""

    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    assert System().has_terminal() == (number != errno.ENXIO)
