"""Decides when freed memory goes back to the kernel: when the worker will probably not need it soon.

Pure; the worker's heartbeat asks it. `rpccluster.system` keeps the memory and gives it back.
"""

from __future__ import annotations

__all__ = ["FreedMemory"]

QUIET_SECONDS = 5.0  # since the worker handled a large message
WORTH_BYTES = 2 << 20  # by which the worker must have grown or shrunk since


class FreedMemory:
    """Watches the resident memory, and whether the worker handles large messages."""

    def __init__(self) -> None:
        self._settled: int | None = None  # resident bytes after the last time it was given back
        self._quiet_since = 0.0
        self._has_handled_large = False  # since then

    def is_due(self, resident: int, has_handled_large: bool, now: float) -> bool:
        """Return whether to give memory back at ``now`` (monotonic seconds); asked at each heartbeat.

        ``resident`` bytes are those without memory that is known to be freed.
        """
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
        """Note that memory was given back, and ``resident`` bytes are left."""
        self._settled = resident
