"""The identity that a process runs as: what it may write, and how a process takes it on.

The master keeps its own identity, and needs the ids to give files to their owner; its children take the ids on.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

__all__ = ["Identity", "become", "lowest_nice"]

_NAMES = ("USER", "LOGNAME")
_RLIMIT_NICE = getattr(resource, "RLIMIT_NICE", 13)  # PyPy may lack the name


@dataclass(frozen=True)
class Identity:
    """The ids to run as; ``name`` is None for a number that the account database does not know."""

    uid: int
    gid: int
    name: str | None
    home: str = "/"

    def groups(self) -> set[int]:
        """Return all groups of this identity."""
        return {self.gid, *(os.getgrouplist(self.name, self.gid) if self.name is not None else ())}

    def may_write(self, folder: str) -> bool:
        """Return whether this identity may make files in ``folder``, by the permissions."""
        folder = os.path.abspath(folder)
        above = os.path.dirname(folder)
        return self._may(folder, 0o3) and (above == folder or self._may_enter(above))

    def _may_enter(self, folder: str) -> bool:
        above = os.path.dirname(folder)
        return self._may(folder, 0o1) and (above == folder or self._may_enter(above))

    def _may(self, folder: str, wanted: int) -> bool:
        """Return whether the mode grants this identity all bits of ``wanted``, as in rwx."""
        try:
            found = os.stat(folder)
        except OSError:
            return False
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.groups() else 0
        return (found.st_mode >> shift) & wanted == wanted


def become(identity: Identity) -> None:
    """Drop this process's privileges: first the groups, while it still may set them. Raises OSError.

    Also sets HOME, USER and LOGNAME, where programs look for the user's files.
    """
    if identity.uid != os.getuid():
        os.environ["HOME"] = identity.home
        for variable in _NAMES:
            os.environ[variable] = identity.name or str(identity.uid)
    if os.geteuid() == 0:
        if identity.name is not None:
            os.initgroups(identity.name, identity.gid)
        else:
            os.setgroups([identity.gid])
    os.setgid(identity.gid)
    os.setuid(identity.uid)


def lowest_nice() -> int:
    """Return the lowest niceness that this process may give itself: setpriority(2)."""
    if os.geteuid() == 0:
        return -20
    soft, _ = resource.getrlimit(_RLIMIT_NICE)
    allowed = -20 if soft == resource.RLIM_INFINITY else 20 - soft
    return min(allowed, os.getpriority(os.PRIO_PROCESS, 0))
