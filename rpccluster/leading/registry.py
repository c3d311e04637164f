"""The registry of clusters as bytes: what a member's value says, and the file that lists all. Pure; any process.

`docs/leadership.md` tells the same to programs in other languages. Fields that this version does not know are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["SERVING", "Entry", "encode_entry", "read_entry", "read_list"]

#: The state of a member that takes calls; entries in any other are left alone.
SERVING = "serving"

_MOST_ADDRESSES = 16


class Entry(NamedTuple):
    """A member: where it is reached, best first; its version of the package; its state; when it started."""

    addresses: tuple[str, ...]
    version: str
    state: str
    started_at: float


def encode_entry(entry: Entry) -> bytes:
    """Encode a member's value."""
    return json.dumps({**entry._asdict(), "addresses": list(entry.addresses)}, sort_keys=True).encode()


def read_entry(value: bytes) -> Entry:
    """Decode a member's value. Raises ValueError, which says what was found."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"found no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"found {type(found).__name__}, expected an object with addresses")
    addresses = found.get("addresses")
    if not isinstance(addresses, list) or not 1 <= len(addresses) <= _MOST_ADDRESSES:
        raise ValueError(f"found the addresses {addresses!r:.200}, expected a list of 1 to {_MOST_ADDRESSES}")
    if not all(isinstance(address, str) for address in addresses):
        raise ValueError(f"found the addresses {addresses!r:.200}, expected strings")
    started_at = found.get("started_at", 0.0)
    if isinstance(started_at, bool) or not isinstance(started_at, (int, float)):
        raise ValueError(f"found started_at {started_at!r:.200}, expected seconds")
    version, state = found.get("version", ""), found.get("state", SERVING)
    return Entry(tuple(addresses), str(version), str(state), float(started_at))


def read_list(content: bytes) -> Mapping[str, bytes]:
    """Return the values of the members in a file, by their ids. Raises ValueError for a file that is no list."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"found no JSON: {error}") from None
    members: Any = found.get("members") if isinstance(found, dict) else None
    if not isinstance(members, dict):
        raise ValueError('found no object "members"')
    return {name: json.dumps(value).encode() for name, value in members.items()}
