"""What connections have to do with workers that crash: messages that do so, and calls. Pure; runs in the master.

Nobody knows what has crashed a worker. So a message that one was reading is tried once more, and a connection at whose
calls three have crashed is not read for a while: it would take one worker after another, and all others' calls.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, TypeVar

__all__ = ["Crash", "Crashes"]

MOST_CONNECTIONS = 1000  # that are remembered
MOST_CRASHES, WITHIN_SECONDS = 3, 60.0

_Value = TypeVar("_Value")


class Crash(NamedTuple):
    """A worker that has crashed at ``now`` (monotonic seconds), while it ran ``method``, as far as is known.

    What has crashed too many workers is not read for ``pause_seconds``; 0: it is.
    """

    now: float
    method: str
    pause_seconds: float


class Crashes:
    """The connections that workers were at when they crashed, by number."""

    def __init__(self) -> None:
        self._borders: dict[int, int] = {}
        self._times: dict[int, deque[float]] = {}
        self._unread: dict[int, float] = {}

    def follow_message(self, number: int, border: int, next_border: int) -> bool:
        """Return whether a worker has crashed while it read the message at this offset of a connection's input.

        For the next owner it is the one at ``next_border``. If another message stands here, that one has begun.
        """
        if self._borders.pop(number, None) != border:
            return False
        _keep(self._borders, number, next_border)
        return True

    def note_message(self, number: int, border: int) -> None:
        """Note a crash while a message was read, which the next owner has at the offset ``border``."""
        _keep(self._borders, number, border)

    def forget_message(self, number: int) -> None:
        """Forget at which message of a connection a worker has crashed: another one may stand at that offset now."""
        self._borders.pop(number, None)

    def note_calls(self, number: int, crash: Crash) -> bool:
        """Note a crash at the calls of a connection. Return whether it is not to be read for a while now."""
        times = self._times.pop(number, None) or deque(maxlen=MOST_CRASHES)
        times.append(crash.now)
        if len(times) < MOST_CRASHES or times[0] < crash.now - WITHIN_SECONDS:
            _keep(self._times, number, times)
            return False
        if crash.pause_seconds > 0:
            _keep(self._unread, number, crash.now + crash.pause_seconds)
        return crash.pause_seconds > 0

    def unread_until(self, number: int) -> float:
        """Return until when a connection is not read, in monotonic seconds; 0 if it is."""
        return self._unread.get(number, 0.0)


def _keep(values: dict[int, _Value], number: int, value: _Value) -> None:
    values[number] = value
    while len(values) > MOST_CONNECTIONS:
        del values[next(iter(values))]
