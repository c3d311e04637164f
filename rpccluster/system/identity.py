"""Who a process runs as: what that identity may write, and becoming it for good.

The master stays who it is, and asks for the ids to give files to their owner; its children become somebody else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Identity", "become"]

_NAMES = ("USER", "LOGNAME")


@dataclass(frozen=True)
class Identity:
    """The ids to run as; ``name`` is None for a number that the account database does not know."""

    uid: int
    gid: int
    name: str | None
    home: str = "/"

    def groups(self) -> set[int]:
        """All groups it is in."""
        return {self.gid, *(os.getgrouplist(self.name, self.gid) if self.name is not None else ())}

    def may_write(self, folder: str) -> bool:
        """Whether it may make files in ``folder``, as far as permissions tell."""
        folder = os.path.abspath(folder)
        above = os.path.dirname(folder)
        return self._may(folder, 0o3) and (above == folder or self._may_enter(above))

    def _may_enter(self, folder: str) -> bool:
        above = os.path.dirname(folder)
        return self._may(folder, 0o1) and (above == folder or self._may_enter(above))

    def _may(self, folder: str, wanted: int) -> bool:
        """Whether all bits of ``wanted``, as in rwx, are set in the mode that counts."""
        try:
            found = os.stat(folder)
        except OSError:
            return False
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.groups() else 0
        return (found.st_mode >> shift) & wanted == wanted


def become(identity: Identity) -> None:
    """Drop this process's privileges. The order is the kernel's: groups as long as they may be set. Raises OSError.

    Another user's environment tells another home and name: programs look for their files there.
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
