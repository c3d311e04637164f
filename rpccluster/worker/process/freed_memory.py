"""When memory that was freed goes back to the kernel: once it seems that it is not wanted again soon.

Decides alone, for the worker's beat; keeping it, and giving it back, is in `rpccluster.system`.
"""

from __future__ import annotations

__all__ = ["FreedMemory"]

QUIET_SECONDS = 5.0  # since something large was handled
WORTH_BYTES = 2 << 20  # what the worker must have grown, or shrunk, by since


class FreedMemory:
    """Watches what is resident, and whether the worker handles what is large."""

    def __init__(self) -> None:
        self._settled: int | None = None  # bytes resident when it had been given back
        self._quiet_since = 0.0
        self._has_handled_large = False  # since then

    def is_due(self, resident: int, has_handled_large: bool, now: float) -> bool:
        """Whether to give it back now, ``now`` being monotonic seconds; asked again and again."""
        if self._settled is None:
            self._settled = resident
        if has_handled_large:
            self._quiet_since, self._has_handled_large = now, True
        if now - self._quiet_since < QUIET_SECONDS:
            return False
        if not self._has_handled_large and abs(resident - self._settled) < WORTH_BYTES:
            return False
        self._quiet_since, self._has_handled_large = now, False
        return True

    def settle(self, resident: int) -> None:
        """It has been given back, and so much is resident: with the next beat more may have been freed already."""
        self._settled = resident
