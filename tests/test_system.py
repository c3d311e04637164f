"""The operating system's edge: children, signals, clocks and the calls that Python does not wrap."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest

from rpccluster import system
from rpccluster.system import Deadline, Exit, System, give_back_freed_memory, peer_process


def run(program: str) -> str:
    """What ``program`` prints, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_deadline_counts_down_to_zero() -> None:
    """Never below; None is for ever."""
    deadline = Deadline.after(60.0)
    assert 59 < (deadline.left() or 0) <= 60
    assert not deadline.is_over()
    assert Deadline(time.monotonic() - 1).left() == 0.0
    assert Deadline.after(0.0).is_over()
    assert Deadline.after(None).left() is None
    assert not Deadline.after(None).is_over()


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


def test_a_process_may_be_pinned() -> None:
    """To one CPU of those it may run on."""
    cpu = max(system.allowed_cpus())
    program = f"from rpccluster import system; system.pin([{cpu}]); print(sorted(system.allowed_cpus()))"
    assert run(program) == f"[{cpu}]"


def test_a_cpu_that_is_not_there_is_an_oserror() -> None:
    """Nothing has changed then."""
    before = system.allowed_cpus()
    with pytest.raises((OSError, ValueError)):
        system.pin([4095])
    assert system.allowed_cpus() == before


def test_the_descriptor_limit_is_raised_as_far_as_it_may_be() -> None:
    """For so many connections and what a process needs beside them; never lowered, never above the hard limit."""
    program = (
        "import resource; from rpccluster.system import make_room_for\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (300, 1000))\n"
        "print(make_room_for(10), make_room_for(200), make_room_for(100), make_room_for(9999))\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert run(program).split() == ["300", "456", "456", "1000", "1000", "1000"]


def test_a_umask_holds_for_a_while() -> None:
    """And is put back whatever happens; None leaves the process's own."""
    program = (
        "import os; from rpccluster.system import umasked\n"
        "os.umask(0o22); seen = []\n"
        "def look(): mask = os.umask(0); os.umask(mask); seen.append(oct(mask))\n"
        "with umasked(0o77): look()\n"
        "with umasked(None): look()\n"
        "try:\n"
        "    with umasked(0): raise ValueError\n"
        "except ValueError: look()\n"
        "print(*seen)"
    )
    assert run(program) == "0o77 0o22 0o22"


def test_resident_memory_is_told_in_bytes() -> None:
    """Of any process; of none it is 0."""
    assert 1 << 20 < system.resident_bytes() < 1 << 34
    assert system.resident_bytes(os.getpid()) > 1 << 20
    assert system.resident_bytes(2**22 + 1) == 0


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


def test_a_peer_is_known_by_pid_and_uid() -> None:
    """As the kernel tells."""
    one, other = socket.socketpair()
    with one, other:
        assert peer_process(one) == (os.getpid(), os.geteuid())


def test_giving_back_memory_collects_first() -> None:
    """What only a collection frees could not go back otherwise."""

    class Cyclic:
        itself: object = None

    lost = Cyclic()
    lost.itself = lost
    seen = weakref.ref(lost)
    gc.disable()
    try:
        del lost
        give_back_freed_memory()
        assert seen() is None
    finally:
        gc.enable()


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


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="only who can look sees that nobody has ended")
def test_who_ends_after_the_look_is_left_for_the_next() -> None:
    """Else its group would live on."""
    program = (
        "import os; from rpccluster import system\n"
        "pid, look = os.fork(), system._next_dead\n"
        "if pid == 0: os._exit(3)\n"
        "os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)\n"
        "system._next_dead = lambda: 0\n"
        "early = system.System().reap({pid})\n"
        "system._next_dead = look\n"
        "print(early, [each.code for each in system.System().reap()])"
    )
    assert run(program) == "[] [3]"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENXIO], ids=os.strerror)
def test_without_room_to_look_there_may_be_a_terminal(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Its window's new size is not to drain a cluster."""

    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    assert System().has_terminal() == (number != errno.ENXIO)
