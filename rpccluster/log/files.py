"""Where log lines go: one file or stderr, and an access log; written by descriptor, reopened in place.

Owns the two descriptors of each process, which keep their numbers for life: reopening puts a new file under
the same number. The master opens files; workers, which may not have the right to, are handed descriptors.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field

from rpccluster.log.lines import lost_lines
from rpccluster.log.outlet import Outlet, own_description
from rpccluster.system.files import open_own, umasked

__all__ = ["LogFiles"]

_STDOUT, _STDERR = 1, 2
#: Not to be opened anew: they are what this process was started with, whatever that is.
_STANDARD = {
    **dict.fromkeys(("", "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"), _STDERR),
    **dict.fromkeys(("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"), _STDOUT),
}
_LAST_SECONDS = 1.0  # for what is left when a process ends


@dataclass
class LogFiles:
    """The log and the access log of this process, and the way to reopen them.

    ``log_path`` empty means stderr; ``access_path`` empty means no access log, equal to "on" the log itself.
    ``owner`` is the (uid, gid) that new files are given to, if any; ``umask`` what they are made under.
    ``holds_output`` says that stdout and stderr lead to the log, too.
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

    @property
    def is_file(self) -> bool:
        """Whether the log is a file of its own, and not what stdout or stderr were at the start."""
        return _standard(self.log_path) is None

    def open(self) -> None:
        """Open the files. Raises OSError; then none is open."""
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
        for descriptor in self.descriptors():
            if descriptor > _STDERR:
                os.close(descriptor)

    def reopen(self) -> list[int]:
        """Open the same paths anew under the same numbers. Returns the descriptors, to be handed on. Raises OSError."""
        self._replace(self.log_descriptor, self.log_path)
        if self.access_path and self.access_path != "on" and self.access_descriptor is not None:
            self._replace(self.access_descriptor, self.access_path)
        if self.holds_output:
            self.hold_output()
        return self.descriptors()

    def hold_output(self) -> None:
        """Let stdout and stderr lead to the log from now on, or nowhere if that has no file: they were the user's."""
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
        """The log's descriptor, then the access log's if it has one of its own."""
        own = self.access_descriptor not in (None, self.log_descriptor)
        return [self.log_descriptor, self.access_descriptor] if own else [self.log_descriptor]  # type: ignore[list-item]

    def take(self, descriptors: list[int]) -> None:
        """Put descriptors that the master sent under this process's numbers, and close them."""
        for new, old in zip(descriptors, self.descriptors()):
            os.dup2(new, old, inheritable=old <= _STDERR)
        for new in descriptors:
            os.close(new)
        if self.holds_output:
            self.hold_output()

    def flush(self) -> None:
        """Write what waits for room, as far as there is some. Called now and then."""
        for outlet in self._outlets():
            outlet.flush()

    def drain(self) -> None:
        """The last lines: a reader that is slow is given a moment, one that has stopped no more than that."""
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
        """Open for appending, without waiting for anybody."""
        standard = _standard(path)
        if standard is not None:
            return own_description(standard)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        flags = os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with umasked(self.umask):
            # read and write: so that a FIFO needs no reader yet, and keeps the lines while that is away
            return open_own(path, flags | (os.O_RDWR if _is_fifo(path) else os.O_WRONLY), self.owner)


def _standard(path: str) -> int | None:
    """stdout or stderr, if that is what ``path`` names, or what is linked there."""
    if path not in _STANDARD:
        with contextlib.suppress(OSError):
            path = os.readlink(path)
    return _STANDARD.get(path)


def _is_fifo(path: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISFIFO(os.stat(path).st_mode)
    return False
