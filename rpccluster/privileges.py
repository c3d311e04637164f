"""Who a worker is: from ``user`` and ``group`` to ids, and becoming them for good. Master and workers.

The master looks ids up to give files to their owner; only workers change who they are.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from rpccluster.config.accounts import gid_of, uid_of

__all__ = ["Identity", "become", "identity_of"]


@dataclass(frozen=True)
class Identity:
    """The ids to run as; ``name`` is None for a number that the account database does not know."""

    uid: int
    gid: int
    name: str | None


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
    return Identity(uid, gid_of(group) if group else account.pw_gid, account.pw_name)


def become(identity: Identity) -> None:
    """Drop this process's privileges. The order is the kernel's: groups as long as they may be set. Raises OSError."""
    if os.geteuid() == 0:
        if identity.name is not None:
            os.initgroups(identity.name, identity.gid)
        else:
            os.setgroups([identity.gid])
    os.setgid(identity.gid)
    os.setuid(identity.uid)
