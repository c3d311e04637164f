"""Finds the ids of the accounts that ``user`` and ``group`` name, in the account database. Any process.

`rpccluster.system.processes.identity` makes a process run as them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from rpccluster.errors import StartError
from rpccluster.system.processes.identity import Identity

__all__ = ["gid_of", "identity_of", "uid_of"]

_LARGEST_ID = 2**32 - 2  # the one above it means "leave unchanged": chown(2), setreuid(2)


def uid_of(user: str) -> int:
    """Return the id of ``user``, a name or a number. Raises `StartError` whose text is ``found …, expected …``."""
    return _id_of(user, "user", _uid_by_name)


def gid_of(group: str) -> int:
    """Return the id of ``group``, a name or a number. Raises `StartError` whose text is ``found …, expected …``."""
    return _id_of(group, "group", _gid_by_name)


def _id_of(name: str, what: str, by_name: Callable[[str], int]) -> int:
    try:
        return by_name(name)
    except (KeyError, ValueError):
        if name.isascii() and name.isdigit() and int(name) <= _LARGEST_ID:
            return int(name)
    raise StartError(f"found {name!r}, expected a {what} of this machine, or a number up to {_LARGEST_ID}")


def _uid_by_name(name: str) -> int:
    import pwd

    return pwd.getpwnam(name).pw_uid


def _gid_by_name(name: str) -> int:
    import grp

    return grp.getgrnam(name).gr_gid


def identity_of(user: str, group: str) -> Identity | None:
    """Return the identity that the options name; None if both are empty.

    A user without a group gets its primary group. Raises `StartError` for an unknown name.
    """
    if not user and not group:
        return None
    import pwd

    uid = uid_of(user) if user else os.geteuid()
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return Identity(uid, gid_of(group) if group else os.getegid(), None)
    return Identity(uid, gid_of(group) if group else account.pw_gid, account.pw_name, account.pw_dir)
