"""The files of the log: one file or stderr, and an access log; written by descriptor, reopened in place.

Owns the two descriptors of each process, which keep their numbers for life: reopening puts a new file under the same
number. The master opens the files and passes the descriptors to its children, which may lack the right to open them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from dataclasses import dataclass, field

from rpccluster.log.lines import lost_lines
from rpccluster.log.outlet import Outlet, own_description
from rpccluster.system.files import open_own, umasked

__all__ = ["LogFiles"]

_STDOUT, _STDERR = 1, 2
#: Paths that stand for the stdout and stderr with which this process was started; they are never opened again.
_STANDARD = {
    **dict.fromkeys(("", "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"), _STDERR),
    **dict.fromkeys(("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"), _STDOUT),
}
_LAST_SECONDS = 1.0  # that a process gives its log's reader at its end


@dataclass
class LogFiles:
    """The log and the access log of this process, and the way to reopen them.

    An empty ``log_path`` means stderr. An empty ``access_path`` means no access log; "on" means the log itself. New
    files get ``owner`` (uid, gid), if given, and are made under ``umask``. ``holds_output`` says that stdout and stderr
    lead to the log, too.
    """

    log_path: str
    access_path: str
    owner: tuple[int, int] | None = None
    umask: int | None = None
    log_descriptor: int = _STDERR
    access_descriptor: int | None = None
    holds_output: bool = False
    outlet: Outlet = field(default_factory=lambda: Outlet(_STDERR, lost_lines))
    access_outlet: Outlet | None = None
    _own_access: Outlet | None = None  # of a file of its own that this process once wrote

    @property
    def is_file(self) -> bool:
        """Whether the log is a file of its own, and not the stdout or stderr of the start."""
        return _standard(self.log_path) is None

    def open(self) -> None:
        """Open the files. Raises OSError, and leaves none open then."""
        self.log_descriptor = self._open(self.log_path)
        self.outlet = Outlet(self.log_descriptor, lost_lines)
        if self.access_path == "on":
            self.access_descriptor, self.access_outlet = self.log_descriptor, self.outlet
        elif self.access_path:
            try:
                self.access_descriptor = self._open(self.access_path)
            except OSError:
                self.close()
                raise
            self.access_outlet = Outlet(self.access_descriptor, lost_lines)

    def close(self) -> None:
        """Close this process's copies; stdout and stderr stay."""
        descriptors = self.descriptors()
        self.log_descriptor, self.outlet = _STDERR, Outlet(_STDERR, lost_lines)
        self.access_descriptor = self.access_outlet = None
        for descriptor in descriptors:
            if descriptor > _STDERR:
                os.close(descriptor)

    def reopen(self) -> list[int]:
        """Open the same paths again under the same numbers. Returns their descriptors. Raises OSError."""
        self._replace(self.log_descriptor, self.log_path)
        if self.access_path and self.access_path != "on" and self.access_descriptor is not None:
            self._replace(self.access_descriptor, self.access_path)
        if self.holds_output:
            self.hold_output()
        return self.descriptors()

    def hold_output(self) -> None:
        """Let stdout and stderr lead to the log, or to /dev/null if the log is no file: the user's own are not kept."""
        self.holds_output = True
        output = os.dup(self.log_descriptor) if self.is_file else os.open(os.devnull, os.O_WRONLY)
        standard = {_STDOUT, _STDERR}
        for descriptor, path in zip(self.descriptors(), (self.log_path, self.access_path)):
            if _standard(path) is not None:
                standard.add(descriptor)
        for descriptor in standard:
            os.dup2(output, descriptor, inheritable=descriptor <= _STDERR)
        os.close(output)

    def descriptors(self) -> list[int]:
        """Return the log's descriptor, then the access log's if it has its own."""
        own = self.access_descriptor not in (None, self.log_descriptor)
        return [self.log_descriptor, self.access_descriptor] if own else [self.log_descriptor]  # type: ignore[list-item]

    def take(self, descriptors: list[int], access_path: str | None = None) -> None:
        """Put the master's ``descriptors`` under this process's numbers, and close them.

        With ``access_path`` the access log is another one. Its number stays, since calls that run still write to it.
        """
        log, *own = descriptors
        os.dup2(log, self.log_descriptor, inheritable=self.log_descriptor <= _STDERR)
        if access_path is not None:
            self._take_access(access_path, own)
        elif own and self.access_descriptor is not None:
            os.dup2(own[0], self.access_descriptor, inheritable=False)
        for new in descriptors:
            os.close(new)
        if self.holds_output:
            self.hold_output()

    def _take_access(self, path: str, own: list[int]) -> None:
        """Write the access log to the file of the descriptor in ``own``, to the log, or not at all."""
        self.access_path = path
        if self._own_access is None and self.access_outlet not in (None, self.outlet):
            self._own_access = self.access_outlet
        if own and self._own_access is None:
            self._own_access = Outlet(fcntl.fcntl(own[0], fcntl.F_DUPFD_CLOEXEC, _STDERR + 1), lost_lines)
        elif self._own_access is not None:
            self._own_access.flush()
            os.dup2(own[0] if own else self.log_descriptor, self._own_access.descriptor, inheritable=False)
        self.access_outlet = (self._own_access if own else self.outlet) if path else None
        self.access_descriptor = self.access_outlet.descriptor if self.access_outlet else None

    def flush(self) -> None:
        """Write waiting lines, as far as there is room. Called now and then."""
        for outlet in self._outlets():
            outlet.flush()

    @property
    def is_waiting(self) -> bool:
        """Whether lines wait for room: call `flush` in a moment."""
        access = self.access_outlet
        return self.outlet.is_waiting or (access is not None and access.is_waiting)

    def drain(self) -> None:
        """Write the last lines, and give a slow reader one second for them."""
        for outlet in self._outlets():
            outlet.drain(_LAST_SECONDS)

    def _outlets(self) -> list[Outlet]:
        return [self.outlet, self.access_outlet] if self.access_outlet else [self.outlet]

    def _replace(self, descriptor: int, path: str) -> None:
        if _standard(path) is None:
            new = self._open(path)
            os.dup2(new, descriptor, inheritable=False)
            os.close(new)

    def _open(self, path: str) -> int:
        """Open ``path`` for appending, without waiting for a reader."""
        standard = _standard(path)
        if standard is not None:
            return own_description(standard)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        flags = os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with umasked(self.umask):
            # open a FIFO to read and write: it needs no reader yet, and keeps lines while the reader is away
            return open_own(path, flags | (os.O_RDWR if _is_fifo(path) else os.O_WRONLY), self.owner)


def _standard(path: str) -> int | None:
    """Return stdout or stderr if ``path`` names it, directly or by a link; else None."""
    if path not in _STANDARD:
        with contextlib.suppress(OSError):
            path = os.readlink(path)
    return _STANDARD.get(path)


def _is_fifo(path: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISFIFO(os.stat(path).st_mode)
    return False
