"""The ids of the accounts that ``user`` and ``group`` name. Reads the account database; any process.

Changes no identity: that is done where a process drops its privileges.
"""

from __future__ import annotations

from collections.abc import Callable

from rpccluster.errors import StartError

__all__ = ["gid_of", "uid_of"]

_LARGEST_ID = 2**32 - 2  # the one above it means "leave unchanged": chown(2), setreuid(2)


def uid_of(user: str) -> int:
    """The id of ``user``, a name or a number. Raises `StartError` whose text is ``found …, expected …``."""
    return _id_of(user, "user", _uid_by_name)


def gid_of(group: str) -> int:
    """The id of ``group``, a name or a number. Raises `StartError` whose text is ``found …, expected …``."""
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
