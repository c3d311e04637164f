"""The file of keys that ``authkey_file`` names: its lines, its permissions, and every fault of it. Any process.

The file is read with the configuration, so that a reload reads it again and a faulty one changes nothing. Nothing that
is shown or logged has a key in it: the text of the option is the path alone.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field

__all__ = ["NO_KEYS", "KeyFile", "read_keys"]

MOST_KEYS = 64
LEAST_KEY_BYTES = 16
DEFAULT_NAME = "default"

_MOST_BYTES = 65_536
_NAME = re.compile(r"[^\s,=*]{1,64}")


@dataclass(frozen=True)
class KeyFile:
    """The path of a file of keys, and what it held when it was read; false without a path.

    ``keys`` are pairs of name and key, in the order of the file. ``problem`` is the fault of the file; empty if it has
    none.
    """

    path: str = ""
    keys: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    problem: str = ""

    def __str__(self) -> str:
        return self.path

    def __bool__(self) -> bool:
        return bool(self.path)

    @property
    def text(self) -> str:
        """The keys as processes tell them each other (`rpccluster.protocol.challenge.keys_of`); empty without any."""
        return "\n".join(f"{name} {key.hex()}" for name, key in self.keys)


NO_KEYS = KeyFile()


def read_keys(path: str) -> KeyFile:
    """Read the file at ``path``, an absolute one."""
    try:
        content = _content(path)
        return KeyFile(path, _parse(path, content))
    except OSError as error:
        return KeyFile(path, problem=f"found {path!r}, which cannot be read: {error.strerror}, expected a file of keys")
    except ValueError as error:
        return KeyFile(path, problem=str(error))


def _open_at_once(path: str, flags: int) -> int:
    """Open ``path``, and do not wait if it is a named pipe."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)


def _content(path: str) -> bytes:
    with open(path, "rb", opener=_open_at_once) as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"found {path!r}, which is no file, expected a file of keys")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o177:
            raise ValueError(f"found {path!r} with mode {mode:04o}, expected mode 0600: chmod 600 keeps keys secret")
        if status.st_uid not in (0, os.geteuid()):
            raise ValueError(f"found {path!r} of user {status.st_uid}, expected a file of this user's or of root's")
        content = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"found more than {_MOST_BYTES} bytes in {path!r}, expected at most {MOST_KEYS} keys")
    return content


def _parse(path: str, content: bytes) -> tuple[tuple[str, bytes], ...]:
    keys = []
    for number, line in enumerate(content.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) > 2:
            raise ValueError(f"found {len(words)} words in line {number} of {path!r}, expected KEY or NAME KEY")
        name = words[0].decode("utf-8", "replace") if len(words) == 2 else DEFAULT_NAME
        if not _NAME.fullmatch(name) or not name.isprintable():
            raise ValueError(f"found the name {name!r} in line {number} of {path!r}, expected one without , = and *")
        if len(words[-1]) < LEAST_KEY_BYTES:
            found = f"found a key of {len(words[-1])} bytes in line {number} of {path!r}"
            raise ValueError(f"{found}, expected at least {LEAST_KEY_BYTES}")
        keys.append((name, words[-1]))
    if not 1 <= len(keys) <= MOST_KEYS:
        raise ValueError(f"found {len(keys)} keys in {path!r}, expected 1 to {MOST_KEYS}")
    return tuple(keys)
