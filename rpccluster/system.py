"""The operating system's edge: processes, signals, clocks and the few Linux calls Python does not wrap.

`System` is what the master is handed, so that tests can hand it another; the functions serve every process.
Nothing here decides anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import gc
import mmap
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

__all__ = [
    "MSG_NOSIGNAL",
    "TELL_SIGNAL",
    "Deadline",
    "Exit",
    "System",
    "allowed_cpus",
    "close_all_but",
    "die_with_parent",
    "forget_what_is_ours",
    "give_back_freed_memory",
    "keep_freed_memory",
    "keep_out_of_collections",
    "make_private",
    "make_room_for",
    "notify_systemd",
    "occupy_standard_descriptors",
    "page_size",
    "peer_process",
    "pin",
    "resident_bytes",
    "set_title",
    "umasked",
    "without_sigpipe",
    "write",
]

#: The master's question to a worker that hangs: dump your stack, write down the method you are in.
TELL_SIGNAL = signal.SIGXCPU

#: The flag of every send: a service, or the program that a client is part of, may have put SIGPIPE at its default.
MSG_NOSIGNAL = getattr(socket, "MSG_NOSIGNAL", 0x4000)  # PyPy 3.9 lacks the name

_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_M_TRIM_THRESHOLD = -1  # malloc.h
_M_MMAP_THRESHOLD = -3
_OURS = (
    "RPCCLUSTER_CMD_ARGS",
    "NOTIFY_SOCKET",  # sd_notify(3)
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",  # sd_listen_fds(3)
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)
_MAP_FIXED = 0x10  # mman.h
_CAN_LOOK = hasattr(os, "waitid")  # at a child that has ended, without reaping it; PyPy cannot
_SO_PEERCRED = getattr(socket, "SO_PEERCRED", 17)  # socket.h; PyPy does not name it
_SPARE_DESCRIPTORS = 256  # beside connections: files of the service, listeners, the loop


@dataclass(frozen=True)
class Deadline:
    """One timeout carried through many steps; ``at`` is on the monotonic clock, None means never."""

    at: float | None

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """The deadline ``seconds`` from now; None means never."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    def left(self) -> float | None:
        """Seconds left, never below 0; None means for ever."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.at is not None and time.monotonic() >= self.at


@dataclass(frozen=True)
class Exit:
    """How a process ended: ``code`` if it exited, ``signal`` if a signal ended it."""

    pid: int
    code: int | None
    signal: int | None

    @classmethod
    def from_status(cls, pid: int, status: int) -> Exit:
        """From what waitpid(2) says."""
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
    """What the master asks of the operating system. Stateless; tests pass a made-up one."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def getpid(self) -> int:
        """This process's pid."""
        return os.getpid()

    def fork(self) -> int:
        """fork(2) with all signals blocked in both processes; each restores the mask when it is ready.

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

    def kill(self, pid: int, signum: int) -> None:
        """kill(2); a process that is gone already is no error."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)

    def has_terminal(self) -> bool:
        """Whether this process has a controlling terminal, or may have: there is no room to look. Source: tty(4)."""
        try:
            os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError as error:
            return error.errno in _NO_ROOM
        return True

    def reap(self, leaders: Container[int] = ()) -> list[Exit]:
        """Every child that has ended since the last call, orphans that were handed to this process included.

        Of those among ``leaders`` the process group is killed first: as long as its leader is a zombie the number
        cannot be another's.
        """
        exits = []
        with contextlib.suppress(ChildProcessError):
            while True:
                pid = _next_dead()
                if _CAN_LOOK and not pid:
                    break  # one that ends only now is not reaped unseen
                if pid in leaders:
                    self._kill_group(pid)
                pid, status = os.waitpid(pid or -1, os.WNOHANG)
                if pid == 0:
                    break
                if not _CAN_LOOK and pid in leaders:  # its number is free already, but hardly taken
                    self._kill_group(pid)
                exits.append(Exit.from_status(pid, status))
        return exits

    def _kill_group(self, leader: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def _next_dead() -> int:
    """The pid of a child that has ended and is not reaped yet; 0 if there is none, or no way to look."""
    found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) if _CAN_LOOK else None
    return found.si_pid if found is not None else 0


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends; exit at once if it already has.

    Cleared by the kernel when the uid or gid changes: call it after dropping privileges. Source: prctl(2).
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def allowed_cpus() -> frozenset[int]:
    """The CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    import psutil  # PyPy's os has no affinity

    return frozenset(psutil.Process().cpu_affinity())


def pin(cpus: list[int]) -> None:
    """Let this process run on ``cpus`` alone. Raises OSError if the kernel will not."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    else:
        import psutil

        psutil.Process().cpu_affinity(cpus)


def forget_what_is_ours() -> None:
    """Drop what the environment says to this program alone: a service and what it runs would take it for theirs."""
    for name in _OURS:
        os.environ.pop(name, None)


def close_all_but(kept: Container[int]) -> None:
    """Close every descriptor that an exec would close, but for ``kept``: what was inherited by an exec stays."""
    for descriptor in _open_descriptors():
        if descriptor not in kept:
            with contextlib.suppress(OSError):
                if not os.get_inheritable(descriptor):
                    os.close(descriptor)


def _open_descriptors() -> Iterable[int]:
    """At least those that are open. Source: proc(5), fd."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def make_room_for(connections: int) -> int:
    """Raise the soft RLIMIT_NOFILE so that so many connections, and the rest of a process, fit under it.

    At most to the hard limit. Returns the soft limit.
    """
    wanted = connections + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        return target
    return soft


def keep_out_of_collections() -> None:
    """Let the garbage collector never look again at the objects there are. PyPy's does not look at all each time."""
    if hasattr(gc, "freeze"):
        gc.freeze()


def keep_freed_memory(most_bytes: int) -> None:
    """Let the C library keep up to ``most_bytes`` of freed memory instead of giving it back page by page.

    Giving back and faulting in again costs more than the copying of a large message. Only glibc has the knob:
    mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(parameter, most_bytes)


def give_back_freed_memory() -> None:
    """Give the kernel all pages of memory that Python and the C library have kept.

    A collection empties Python's lists of free objects, which keep whole arenas. Only glibc has malloc_trim(3).
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def make_private(memory: mmap.mmap) -> None:
    """Put zeros that this process alone sees in the place of ``memory``, which it shares; views of it stay good.

    Raises OSError. Source: mmap(2), MAP_FIXED.
    """
    c_library = ctypes.CDLL(None, use_errno=True)
    c_library.mmap.restype = ctypes.c_void_p
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    size, protection, offset = ctypes.c_size_t(len(memory)), mmap.PROT_READ | mmap.PROT_WRITE, ctypes.c_long(0)
    if c_library.mmap(ctypes.c_void_p(address), size, protection, flags, -1, offset) != address:
        raise OSError(ctypes.get_errno(), "mmap")


@contextlib.contextmanager
def umasked(mask: int | None) -> Iterator[None]:
    """Make files under this umask; None leaves the process's own."""
    before = None if mask is None else os.umask(mask)
    try:
        yield
    finally:
        if before is not None:
            os.umask(before)


@functools.lru_cache(maxsize=1)
def page_size() -> int:
    """Bytes in a page of memory."""
    return os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | str = "self") -> int:
    """Resident set size of a process in bytes; 0 if it is gone. Source: proc(5), statm."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * page_size()
    except (OSError, IndexError):
        return 0


def peer_process(sock: socket.socket) -> tuple[int, int]:
    """pid and uid of whoever connected a Unix stream socket, as they were then. Source: unix(7), SO_PEERCRED."""
    pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, struct.calcsize("iII")))
    return pid, uid


def occupy_standard_descriptors() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed.

    Else a socket or the pidfile would get that number, and what is printed, or be closed when it is redirected.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one


def notify_systemd(state: str) -> bool:
    """Tell systemd ``state`` (sd_notify(3)), if it asked to be told. False: its queue is full, try again."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return True
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
            notice.setblocking(False)
            notice.sendto(state.encode(), MSG_NOSIGNAL, address)
    except OSError as error:
        return error.errno not in _NO_ROOM
    return True


def write(descriptor: int, data: bytes) -> int:
    """write(2) to what may be a pipe: BrokenPipeError if nobody reads it, whatever SIGPIPE is set to."""
    with without_sigpipe():
        return os.write(descriptor, data)


@contextlib.contextmanager
def without_sigpipe() -> Iterator[None]:
    """Let a write to a pipe that nobody reads raise BrokenPipeError, and no more.

    The signal goes to the thread that writes, so that is where it is blocked and taken back.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGPIPE,))
    try:
        yield
    except BrokenPipeError:
        if signal.SIGPIPE not in blocked and hasattr(signal, "sigtimedwait"):  # PyPy has none
            signal.sigtimedwait((signal.SIGPIPE,), 0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def set_title(title: str) -> None:
    """Show ``title`` as this process's name in ps(1) and top(1)."""
    import setproctitle

    setproctitle.setproctitle(title)
