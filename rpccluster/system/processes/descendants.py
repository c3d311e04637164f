"""Descendants of a process, also those that leave its group and session: adopted, marked, found and killed.

A process that calls setsid(2) leaves its group. When its parent ends, it falls to the nearest ancestor that has called
`adopt_orphans`. A mark in its environment still says whose it was: an exec hands the mark on in the variable, and a
fork in the memory that /proc/PID/environ shows. A process that wipes its environment has no mark any more. Linux alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Collection, Iterable, Iterator
from typing import Callable

__all__ = [
    "MARK_VARIABLE",
    "adopt_orphans",
    "descendants",
    "kill_group_of",
    "kill_marked",
    "living_groups",
    "processes",
    "put_mark",
    "started",
]

#: Its value is the marks of all marked ancestors, with blanks between: a cluster may run in a plugin of another one.
MARK_VARIABLE = "RPCCLUSTER_GROUP"

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_PARENT, _GROUP, _START = 1, 2, 19  # fields of /proc/PID/stat, counted from the state
_ENVIRONMENT = slice(47, 49)


def adopt_orphans() -> None:
    """Become the parent of each descendant whose own parent ends. Source: prctl(2), PR_SET_CHILD_SUBREAPER."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def put_mark(mark: str) -> None:
    """Mark this process and its later descendants with ``mark``, beside the marks that it was started with.

    The kernel shows the environment as it was at the last exec, in memory that setproctitle(3) has emptied. So the mark
    is written there, too, if there is room: for the descendants that are forked and call no exec.
    """
    os.environ[MARK_VARIABLE] = f"{os.environ.get(MARK_VARIABLE, '')} {mark}".strip()
    for name, value in list(os.environb.items()):
        os.environb[name] = value  # getenv(3) finds them elsewhere from now on, not in that memory
    entry = f"\0{MARK_VARIABLE}={os.environ[MARK_VARIABLE]}\0".encode()
    begin, end = (int(field) for field in _stat("self")[_ENVIRONMENT] or (0, 0))
    if end - begin >= len(entry):
        ctypes.memmove(end - len(entry), entry, len(entry))


def started(pid: int) -> int:
    """Return when a process was started, in clock ticks since the boot: with its pid this tells it from any later one.

    Returns 0 if it has been reaped.
    """
    fields = _stat(pid)
    return int(fields[_START]) if fields else 0


def processes() -> list[int]:
    """Return the pids of all processes of the machine, as far as this one may see them."""
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []


def kill_group_of(leader: int, started_at: int) -> bool:
    """Kill the process group that ``leader`` led, which was started at ``started_at``. Returns whether it exists.

    The number stays the group's own as long as any member lives, with or without its leader. If a process of that
    number was started at another time, then group and number are a stranger's.
    """
    if started(leader) not in (0, started_at):
        return False
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return False
    except PermissionError:  # to kill any member
        pass
    return True


def living_groups() -> set[int]:
    """Return the numbers of all process groups of the machine that have a member which is no zombie."""
    fields = (_stat(pid) for pid in processes())
    return {int(each[_GROUP]) for each in fields if each and each[0] != b"Z"}


def descendants(pid: int, leave_out: Collection[int] = ()) -> list[int]:
    """Return the pids of the living descendants of ``pid``, without those in ``leave_out`` and below them."""
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in _children(parent) if child not in leave_out]
        found += level
    return found


def kill_marked(pids: Iterable[int], is_meant: Callable[[str], bool]) -> list[int]:
    """Kill the processes among ``pids`` that have a mark that ``is_meant``. Returns their pids.

    If such a process ends meanwhile, and another one gets its number, that one lives.
    """
    return [pid for pid in pids if _kill_if_marked(pid, is_meant)]


def _kill_if_marked(pid: int, is_meant: Callable[[str], bool]) -> bool:
    with _held(pid) as kill:
        if any(is_meant(mark) for mark in _marks(pid)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill()
                return True
    return False


@contextlib.contextmanager
def _held(pid: int) -> Iterator[Callable[[], None]]:
    """Yield a function that kills the process that has the number ``pid`` now, and no later one."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # PyPy and old kernels have none; it may have ended
        then = started(pid)

        def kill_then() -> None:
            if started(pid) != then:
                raise ProcessLookupError from None
            os.kill(pid, signal.SIGKILL)

        yield kill_then
        return
    try:
        yield lambda: signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _marks(pid: int) -> Iterator[str]:
    begin = f"{MARK_VARIABLE}=".encode()
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:
        for entry in environment.read().split(b"\0"):
            if entry.startswith(begin):
                yield from entry[len(begin) :].decode(errors="replace").split()


def _children(pid: int) -> list[int]:
    """Return the children of all threads of a process. Source: proc(5), task/TID/children, which few kernels lack."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as children:
                found += map(int, children.read().split())
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{thread}"):
                return [each for each in processes() if _stat(each)[_PARENT : _PARENT + 1] == [b"%d" % pid]]
        except OSError:
            continue
    return found


def _stat(pid: int | str) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the state on; none if the process has been reaped."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].split()
    return []
