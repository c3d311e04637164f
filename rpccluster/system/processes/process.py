"""Forks, kills and reaps processes; ties a process to its parent, and sets its title in ps(1).

The master is given a `System`, which tests replace by their own; the functions serve every process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import selectors
import signal
import time
from collections.abc import Collection, Container
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Callable

from rpccluster.system.processes import descendants

__all__ = ["TELL_SIGNAL", "Exit", "System", "Work", "die_with_parent", "forget_what_is_ours", "set_title"]

#: The master sends it to a hung child, which then dumps its stack and notes what it works on. A handled SIGXCPU kills
#: nobody, and no user sends it.
TELL_SIGNAL = signal.SIGXCPU

#: Work for another process: it returns a text for the one that has asked for it.
Work = Callable[[], str]

_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_OURS = (
    "RPCCLUSTER_CMD_ARGS",
    "NOTIFY_SOCKET",  # sd_notify(3)
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",  # sd_listen_fds(3)
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",  # by later versions
)
_CAN_LOOK = hasattr(os, "waitid")  # at an ended child without reaping it; PyPy cannot


@dataclass(frozen=True)
class Exit:
    """How a process ended: ``code`` if it exited, ``signal`` if a signal ended it."""

    pid: int
    code: int | None
    signal: int | None

    @classmethod
    def from_status(cls, pid: int, status: int) -> Exit:
        """Make an `Exit` of a status of waitpid(2)."""
        if os.WIFSIGNALED(status):
            return cls(pid, None, os.WTERMSIG(status))
        return cls(pid, os.WEXITSTATUS(status), None)

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit code {self.code}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(self.signal).name}"
        return f"signal {self.signal}"


class System:
    """The master's calls to the operating system. Stateless; tests, and the simulation, pass a made-up one."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that never goes back."""
        return time.monotonic()

    def utc(self) -> datetime:
        """Return the time of the day, in UTC."""
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Do nothing for ``seconds``."""
        time.sleep(seconds)

    def selector(self) -> selectors.BaseSelector:
        """Return a new selector, with which a loop waits."""
        return selectors.DefaultSelector()

    def set_title(self, title: str) -> None:
        """Show ``title`` as this process's name."""
        set_title(title)

    def getpid(self) -> int:
        """Return this process's pid."""
        return os.getpid()

    def fork(self) -> int:
        """Call fork(2) with all signals blocked in both processes; each restores the mask when it is ready.

        A signal that comes between the fork and the child's own handlers would run the parent's.
        """
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            raise
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return pid

    def spawn(self, live: Callable[[], object]) -> int:
        """Fork a child that calls ``live``, which never returns. Returns the child's pid. Raises OSError."""
        pid = self.fork()
        if not pid:
            live()
        return pid

    def begin_aside(self, work: Work, live: Callable[[Work, int], object]) -> tuple[int, int]:
        """Have a process of its own do ``work``. Returns its pid, and a descriptor to read from what the work returns.

        The process calls ``live`` with the work and the descriptor to write to, and never returns. A line end follows
        the text; if it is missing, the process was killed. Raises OSError.
        """
        result, told = os.pipe()
        try:
            pid = self.spawn(lambda: live(work, told))
        except BaseException:
            os.close(result)
            raise
        finally:
            os.close(told)
        return pid, result

    def kill(self, pid: int, signum: int) -> None:
        """Call kill(2); a process that has already ended is no error."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)

    def kill_group(self, leader: int, signum: int) -> None:
        """Send a signal to the process group of ``leader``, and to it. Source: killpg(2).

        It leads none yet, or has left its own to others by setpgid(2), if its group has another number. Members that
        have become another user are left out; a leader that has already ended is no error.
        """
        is_led = True
        try:
            os.killpg(leader, signum)
        except ProcessLookupError:
            is_led = False  # when it was asked; it may lead a group by now
        except PermissionError:
            pass
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not is_led or os.getpgid(leader) != leader:
                self.kill(leader, signum)

    def wait(self, pid: int) -> None:
        """Wait for the end of a child that is just ending, and reap it."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def adopt_orphans(self) -> None:
        """Become the parent of each descendant whose own parent ends."""
        descendants.adopt_orphans()

    def kill_marked(self, marks: Container[str], leave_out: Collection[int]) -> list[int]:
        """Kill the descendants with one of ``marks``, but none of ``leave_out`` or below. Returns their pids."""
        return descendants.kill_marked(descendants.descendants(self.getpid(), leave_out), marks.__contains__)

    def started(self, pid: int) -> int:
        """Return what tells the present process ``pid`` from any later one; 0 if there is none."""
        return descendants.started(pid)

    def has_terminal(self) -> bool:
        """Return whether this process has a controlling terminal; yes if it cannot look now. Source: tty(4)."""
        try:
            os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError as error:
            return error.errno in _NO_ROOM
        return True

    def reap(self, leaders: Container[int] = (), let_go: Callable[[int], object] = int) -> list[Exit]:
        """Reap every child that has ended since the last call, also orphans that the kernel gave to this process.

        If a child is among ``leaders``, its process group is killed first, then ``let_go`` is called with its pid: as
        long as the leader is a zombie, no other group can have that number, and afterwards any other may.
        """
        exits = []
        with contextlib.suppress(ChildProcessError):
            while True:
                pid = _next_dead()
                if _CAN_LOOK and not pid:
                    break  # a child that ends only now must not be reaped unseen
                if pid in leaders:
                    self._end_group(pid, let_go)
                pid, status = os.waitpid(pid or -1, os.WNOHANG)
                if pid == 0:
                    break
                if not _CAN_LOOK and pid in leaders:  # its number is already free, but hardly taken again
                    self._end_group(pid, let_go)
                exits.append(Exit.from_status(pid, status))
        return exits

    def _end_group(self, leader: int, let_go: Callable[[int], object]) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
        let_go(leader)


def _next_dead() -> int:
    """Return the pid of an ended child that is not reaped yet; 0 if there is none, or no way to look."""
    found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) if _CAN_LOOK else None
    return found.si_pid if found is not None else 0


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends; exit at once if it already has.

    The kernel clears this when the uid or gid changes: call it after dropping privileges. Source: prctl(2).
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def forget_what_is_ours() -> None:
    """Remove the environment variables that are for the master alone; a service would take them for its own."""
    for name in _OURS:
        os.environ.pop(name, None)


def set_title(title: str) -> None:
    """Show ``title`` as this process's name in ps(1) and top(1)."""
    import setproctitle

    setproctitle.setproctitle(title)
