"""The options of the methods of queues, as callers send them, checked. Pure; runs in the keeper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rpccluster.services.keeper.waiting import NEVER
from rpccluster.worker.service.call_errors import Misfit

__all__ = ["Options", "count_of", "name_of", "numbered_of", "pairs_of", "whole_of"]

MOST_ITEMS = 100_000  # of one call
_LARGEST = 2**63 - 1
_LONGEST_SECONDS = 10**9
_LONGEST_TEXT = 1024
_SESSION_BYTES = range(16, 65)


class Options:
    """The options of one call; each is taken once, and what is left is unknown."""

    def __init__(self, given: Any) -> None:
        """Raises `Misfit` unless ``given`` is a map, or nothing."""
        if given is not None and not isinstance(given, Mapping):
            raise _unfit("options", given, "a map")
        self._given = dict(given or {})

    def done(self) -> None:
        """Raise `Misfit` for an option that nothing has taken."""
        for key in self._given:
            raise Misfit(TypeError(f"found the unknown option {key!r}"))

    def take(self, key: str) -> Any:
        """Return the option ``key`` as it is; None without it."""
        return self._given.pop(key, None)

    def seconds(self, key: str) -> float | None:
        """Return a duration; None without it."""
        found = self._given.pop(key, None)
        if found is None:
            return None
        if type(found) not in (int, float) or not 0 <= found <= _LONGEST_SECONDS or math.isnan(found):
            raise _unfit(key, found, f"seconds, 0 to {_LONGEST_SECONDS}")
        return float(found)

    def ends_at(self, now: float) -> float:
        """Return when the call is over: ``timeout`` seconds from now, or never."""
        seconds = self.seconds("timeout")
        return NEVER if seconds is None else now + seconds

    def whole(self, key: str, low: int, high: int, default: int) -> int:
        """Return a whole number from ``low`` to ``high``."""
        found = self._given.pop(key, None)
        return default if found is None else whole_of(key, found, low, high)

    def number(self, key: str) -> int | None:
        """Return a number that is not negative; None without it."""
        found = self._given.pop(key, None)
        return None if found is None else whole_of(key, found, 0, _LARGEST)

    def flag(self, key: str) -> bool:
        """Return whether something is wanted; False without it."""
        found = self.take(key)
        if found is not None and type(found) is not bool:
            raise _unfit(key, found, "true or false")
        return bool(found)

    def text(self, key: str) -> str | None:
        """Return a text; None without it."""
        found = self.take(key)
        if found is not None and (type(found) is not str or len(found) > _LONGEST_TEXT):
            raise _unfit(key, found, f"a text of at most {_LONGEST_TEXT} characters")
        return found

    def session(self) -> bytes | None:
        """Return the session; None without one."""
        found = self._given.pop("session", None)
        if found is None:
            return None
        data = found.encode("utf-8", "surrogateescape") if type(found) is str else found
        if type(data) is not bytes or len(data) not in _SESSION_BYTES:
            raise _unfit("session", found, "a str or bin of 16 to 64 bytes")
        return data


def numbered_of(given: Any) -> tuple[bytes | None, int] | None:
    """Return the session and the number of a call that has no other options, in their common form; else None."""
    if given is None:
        return None, 0
    if type(given) is not dict or len(given) != 2:
        return None
    session, seq = given.get("session"), given.get("seq")
    if type(session) is not bytes or len(session) not in _SESSION_BYTES or type(seq) is not int:
        return None
    return (session, seq) if 0 < seq <= _LARGEST else None


def name_of(name: Any) -> str:
    """Return the name of a queue, which may have come as bin."""
    if type(name) is bytes:
        name = name.decode("utf-8", "surrogateescape")
    if type(name) is not str:
        raise _unfit("queue", name, "a name")
    return str(name)


def whole_of(key: str, found: Any, low: int, high: int) -> int:
    """Return ``found`` if it is a whole number from ``low`` to ``high``."""
    if type(found) is not int or not low <= found <= high:
        raise _unfit(key, found, f"a whole number, {low} to {high}")
    return found


def count_of(key: str, found: Any) -> int:
    """Return how many items are wanted."""
    return whole_of(key, found, 0, MOST_ITEMS)


def pairs_of(key: str, found: Any) -> list[tuple[int, int]]:
    """Return ids with their attempts."""
    if found is None:
        return []
    if type(found) is not list or len(found) > MOST_ITEMS:
        raise _unfit(key, found, "an array of [ID, ATTEMPT]")
    pairs = []
    for each in found:
        if type(each) is not list or len(each) != 2:
            raise _unfit(key, each, "[ID, ATTEMPT]")
        id, attempt = each
        if type(id) is not int or type(attempt) is not int:
            raise _unfit(key, each, "[ID, ATTEMPT]")
        if not (0 <= id <= _LARGEST and 0 <= attempt <= _LARGEST):
            raise _unfit(key, each, "numbers that are not negative")
        pairs.append((id, attempt))
    return pairs


def _unfit(key: str, found: Any, expected: str) -> Misfit:
    shown = repr(found)
    shown = shown if len(shown) <= 100 else f"{shown[:99]}…"
    return Misfit(TypeError(f"found {shown} for {key}, expected {expected}"))
