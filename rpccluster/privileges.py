"""Who a worker is: from ``user`` and ``group`` to ids, and becoming them for good. Master and workers.

The master looks ids up to give files to their owner; only workers change who they are.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from rpccluster.config.accounts import gid_of, uid_of
from rpccluster.log import logger

__all__ = ["Identity", "become", "identity_of", "tell_private_folder"]

_NAMES = ("USER", "LOGNAME")
_TEMPORARY = ("TMPDIR", "TEMP", "TMP")


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


def identity_of(user: str, group: str) -> Identity | None:
    """The ids that the options name, None if both are empty: then nothing changes.

    A user without a group has its own primary one. Raises `StartError` for an unknown name.
    """
    if not user and not group:
        return None
    uid = uid_of(user) if user else os.geteuid()
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return Identity(uid, gid_of(group) if group else os.getegid(), None)
    return Identity(uid, gid_of(group) if group else account.pw_gid, account.pw_name, account.pw_dir)


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


def tell_private_folder(identity: Identity | None) -> None:
    """Log that the folder for temporary files is this user's alone, if it is: the service may look for it in vain."""
    for variable in _TEMPORARY if identity is not None and identity.uid != os.geteuid() else ():
        folder = os.environ.get(variable)
        if folder and identity is not None and not identity.may_write(folder):
            name = identity.name or identity.uid
            logger.warning("%s is %s, where %s, the user of the workers, can make no file", variable, folder, name)
