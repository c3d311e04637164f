"""The keys of tasks, as numbers: a dispatcher knows by them what an earlier one has begun. Runs in the dispatcher."""

from __future__ import annotations

import hashlib
from typing import Any

from rpccluster.protocol.codec import make_packer

__all__ = ["Key", "key_of"]

_BYTES = 8  # that the journal has for each


class Key(int):
    """The number of a key, never 0; ``text`` is the key itself, where it is a str that is known here."""

    text: str | None = None


def key_of(key: Any) -> Key | None:
    """Return the number of ``key``, a str or a number, the same in each dispatcher; None for None. Raises TypeError."""
    if key is None:
        return None
    if not isinstance(key, (str, int, float)):
        raise TypeError(f"found the key {key!r}, expected a str or a number")
    if isinstance(key, float) and key.is_integer():
        key = int(key)  # 1.0 is 1
    if isinstance(key, int):
        key = str(int(key)).encode()  # also of more than 64 bits; True is 1
    digest = hashlib.blake2b(make_packer().pack(key), digest_size=_BYTES).digest()
    found = Key(int.from_bytes(digest, "big") or 1)
    found.text = key if isinstance(key, str) else None
    return found
