"""Where a Redis is, as `[queues] engine` tells it, and what a keeper is called in it. Any process."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass

__all__ = ["RedisAddress", "keeper_name"]

_FORM = re.compile(
    r"redis://(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/@\[\]]+))(?::(?P<port>\d{1,5}))?(?:/(?P<db>\d{0,5}))?"
)


@dataclass(frozen=True)
class RedisAddress:
    """A host, a port and the number of a database."""

    host: str
    port: int = 6379
    db: int = 0

    @classmethod
    def parse(cls, text: str) -> RedisAddress:
        """Read ``redis://HOST:PORT/DB``. Raises ValueError for anything else."""
        found = _FORM.fullmatch(text)
        if found is None or int(found["port"] or 1) not in range(1, 65536):
            raise ValueError(f"found {text.rpartition('@')[2]!r}, expected redis://HOST:PORT/DB")
        return cls(found["six"] or found["host"], int(found["port"] or 6379), int(found["db"] or 0))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis://{host}:{self.port}/{self.db}"


def keeper_name(path: str) -> str:
    """Return the name of the keeper with the socket ``path``: always the same, and no other keeper's on any host."""
    try:
        with open("/etc/machine-id") as file:
            machine = file.read()
    except OSError:
        machine = ""
    where = "\0".join((machine.strip(), socket.gethostname(), os.path.realpath(path)))
    return hashlib.sha256(where.encode(errors="surrogateescape")).hexdigest()[:32]
