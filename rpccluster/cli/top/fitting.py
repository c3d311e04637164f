"""Fits sections into a terminal of any size: how many rows each shows, and which. Pure.

The process that the user starts.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["first_shown", "shares"]

LEAST_LINES = 2


def shares(wanted: Sequence[int], room: int, front: int = 0) -> list[int]:
    """Divide ``room`` lines among sections that want so many each: what one does not need goes to the others.

    A section has at least its titles and a row. Where there is no room for all, the one in ``front`` has some, and the
    others in their order.
    """
    given = [0] * len(wanted)
    for place in sorted(range(len(wanted)), key=lambda place: place != front):
        least = min(LEAST_LINES, wanted[place])
        if least <= room:
            given[place] = least
            room -= least
    while room > 0:
        hungry = [place for place, number in enumerate(wanted) if 0 < given[place] < number]
        if not hungry:
            break
        each = max(1, room // len(hungry))
        for place in hungry:
            more = min(each, wanted[place] - given[place], room)
            given[place] += more
            room -= more
    return given


def first_shown(selected: int, shown: int, number: int) -> int:
    """Return the first of ``number`` rows to show, so that the selected one is among the ``shown``."""
    return max(0, min(selected - shown + 1, number - shown)) if shown else 0
