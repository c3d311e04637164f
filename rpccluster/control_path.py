"""The default path of a control socket: where a master puts it, and where a command finds it. Any process.

It is ``NAME-HASH.sock`` in a folder that only this user can enter: ``rpccluster`` in ``$XDG_RUNTIME_DIR``, or
``rpccluster-UID`` below the temporary folder. HASH stands for the configuration file, or for the command line of a
cluster without one. So a command that knows the file finds the socket, whatever the cluster is called. Any user may
make a folder below the temporary one, so a folder counts only if it belongs to this user and has mode 0700.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import time

from rpccluster.system import check_listening
from rpccluster.system.files import umasked

__all__ = ["clear_stale", "folders", "living", "make_folder", "socket_name"]

_MODE = 0o700
_LONGEST_NAME = 32  # a Unix path has room for 107 bytes
_HASH_DIGITS = 12
_STALE_SECONDS = 60.0  # a socket younger than this may belong to a master that does not listen yet


def folders(uid: int | None = None) -> list[str]:
    """Return the folders that a control socket of this user, or of ``uid``, may lie in, the best one first."""
    uid = os.geteuid() if uid is None else uid
    runtime = os.environ.get("XDG_RUNTIME_DIR", "") if uid == os.geteuid() else ""
    found = [os.path.join(runtime, "rpccluster")] if _is_own(runtime) else []  # after `su` it is another user's
    temporary = [each for each in (os.environ.get("TMPDIR", ""), "/tmp") if os.path.isabs(each)]
    found += [os.path.join(each, f"rpccluster-{uid}") for each in temporary]
    return list(dict.fromkeys(found))


def _is_own(folder: str) -> bool:
    try:
        return os.path.isabs(folder) and os.stat(folder).st_uid == os.geteuid()
    except OSError:
        return False


def make_folder(folder: str, uid: int | None = None) -> None:
    """Make ``folder``, or check that it is a folder of this user's, or of ``uid``, with mode 0700. Raises OSError."""
    uid = os.geteuid() if uid is None else uid
    with contextlib.suppress(FileExistsError), umasked(0o777 & ~_MODE):
        os.mkdir(folder, _MODE)
        if uid != os.geteuid():
            os.chown(folder, uid, -1)
    if not _is_private(folder, uid):
        raise PermissionError(errno.EPERM, f"expected a folder of uid {uid} with mode 0700", folder)


def _is_private(folder: str, uid: int | None = None) -> bool:
    uid = os.geteuid() if uid is None else uid
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    mode = stat.S_IMODE(found.st_mode) & ~stat.S_ISGID  # mkdir(2) takes that bit from the folder above
    return stat.S_ISDIR(found.st_mode) and (found.st_uid, mode) == (uid, _MODE)


def socket_name(cluster_name: str, identity: str) -> str:
    """Return the name of the socket of a cluster; ``identity`` tells it from other clusters of the same name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", cluster_name)[:_LONGEST_NAME] + _ending(identity)


def _ending(identity: str) -> str:
    digest = hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest()
    return f"-{digest[:_HASH_DIGITS]}.sock"


def living(identity: str | None = None) -> list[str]:
    """Return the paths of the sockets at which a master listens: those of ``identity``, or all of this user's."""
    ending = ".sock" if identity is None else _ending(identity)
    private = [folder for folder in folders() if _is_private(folder)]
    return [path for folder in private for path in _sockets(folder) if path.endswith(ending) and _is_living(path)]


def clear_stale(folder: str) -> None:
    """Remove what masters that were killed have left in ``folder``, a private one."""
    for path in _sockets(folder):
        with contextlib.suppress(OSError):
            if os.lstat(path).st_mtime < time.time() - _STALE_SECONDS and not _is_living(path):
                os.unlink(path)


def _sockets(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".sock")]
    except OSError:
        return []


def _is_living(path: str) -> bool:
    try:
        check_listening(path)
    except OSError:
        return False
    return True
