"""Tells systemd what this master does, and that it lives. Runs in the master. Source: sd_notify(3).

`rpccluster.system.notify_systemd` does the sending. A master tells nothing before it serves, and nothing but signs of
life once it stops: a READY=1 at the wrong time would be taken for the end of the start, or of another reload. The new
master of an upgrade is not the main process until the old one, which systemd listens to, has named it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rpccluster.system import notify_systemd

__all__ = ["Notices"]

_LONGEST_STATUS = 500
_LAST_SECONDS = 3.0
_RETRY_SECONDS = 0.01
_NEVER = float("inf")


class Notices:
    """Sends states in their order; each waits until those before it are sent.

    ``wake_at`` is when to call `turn` for a sign of life (monotonic seconds); infinity if systemd wants none.
    """

    def __init__(self, watchdog_seconds: float = 0.0, send: Callable[[str], bool] = notify_systemd) -> None:
        """``send`` returns whether the state is done with, and False if it must be sent again.

        Signs of life are sent twice in ``watchdog_seconds``; 0 means none.
        """
        self._send = send
        self._due: deque[str] = deque()
        self._beat_seconds = watchdog_seconds / 2
        self._is_serving = False
        self._is_reloading = False
        self._begun = 0
        self.wake_at = _NEVER

    @property
    def is_waiting(self) -> bool:
        """Whether something is still to be told: call `turn` in a moment."""
        return bool(self._due)

    def tell_ready(self, pid: int, status: str, now: float) -> None:
        """Say that this master, the process ``pid``, serves. Signs of life begin."""
        self._is_serving = True
        if self._beat_seconds:
            self.wake_at = now + self._beat_seconds
        self._tell(f"READY=1\nMAINPID={pid}\n{_status(status)}")

    def is_concerned(self, begun: int) -> bool:
        """Return whether `follow_changes` has something to do, of ``begun`` changes."""
        return self._is_reloading or begun != self._begun

    def follow_changes(self, begun: int, outcome: str, now: float, *, is_under_way: bool) -> None:
        """Say when a reload or another change begins, and when it has ended with ``outcome``; ``begun`` counts them.

        A refused one begins and ends at once: systemd must not wait for its end for ever.
        """
        if begun != self._begun:
            self._begun = begun
            if self._is_serving:
                self._is_reloading = True
                self._tell(f"RELOADING=1\nMONOTONIC_USEC={int(now * 1_000_000)}\n{_status('Reloading')}")
        if self._is_reloading and not is_under_way:
            self._is_reloading = False
            self._tell(f"READY=1\n{_status(outcome)}")

    def tell_stopping(self) -> None:
        """Say that this master stops."""
        self._is_serving = self._is_reloading = False
        self._tell(f"STOPPING=1\n{_status('Stopping')}")

    def tell_main(self, pid: int) -> None:
        """Say that the process ``pid`` is the main one."""
        self._tell(f"MAINPID={pid}")

    def leave_to(self, pid: int) -> None:
        """Say that the new master, the process ``pid``, is the main one, and nothing more from now on."""
        self._is_serving = self._is_reloading = False
        self.wake_at = _NEVER
        self.tell_main(pid)

    def turn(self, now: float) -> None:
        """Tell what is due; a sign of life, too, unless others are waiting, which are signs themselves."""
        if now >= self.wake_at:
            self.wake_at = now + self._beat_seconds
            if not self._due:
                self._tell("WATCHDOG=1")
        self._flush()

    def drain(self, seconds: float = _LAST_SECONDS) -> None:
        """Tell what is due before this master ends, and give a slow systemd up to ``seconds``.

        One that has not heard which process is the main one by then takes the end of this one for the unit's.
        """
        give_up_at = time.monotonic() + seconds
        self._flush()
        while self._due and time.monotonic() < give_up_at:
            time.sleep(_RETRY_SECONDS)
            self._flush()

    def _tell(self, state: str) -> None:
        self._due.append(state)
        self._flush()

    def _flush(self) -> None:
        while self._due and self._send(self._due[0]):
            self._due.popleft()


def _status(text: str) -> str:
    return f"STATUS={'; '.join(text.splitlines())[:_LONGEST_STATUS]}"
