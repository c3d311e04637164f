"""A page of shared memory by which all processes of a cluster know whether it leads. One coordinator writes it.

The master makes it, and all masters of one line of upgrades have the same: a file in memory that the next one inherits.
Processes forked by a master have its mapping. Readers compare the end of the lease with the clock, so that a lease
ends by itself, whatever has stopped. A lease of another holder has another token, and between two of them the end is 0.
Cells are aligned 64-bit words, written by plain stores: readers see whole values.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from typing import Any

from rpccluster.leading.store import Standing, boot_ns

__all__ = ["BEGINS_NS", "ENDS_NS", "PAGE_BYTES", "TOKEN", "LeadPage", "Leader", "lead_page", "use_lead_page"]

PAGE_BYTES = 4096
#: Cells that hot code reads: the end of the lease, the token of it, and until when calls may begin by it.
ENDS_NS, TOKEN, BEGINS_NS = range(3)
_SESSION_NS, _TURN, _LENGTH, _LEADERS_TOKEN, _IS_OURS = range(3, 8)
_TEXT_AT = 64
_MOST_TEXT = PAGE_BYTES - _TEXT_AT
_READS = 100  # of a text that changes meanwhile


class Leader:
    """What is known of who leads: its ``token`` and its first ``address``, 0 and empty while nobody does."""

    def __init__(self, token: int, address: str) -> None:
        self.token = token
        self.address = address


class LeadPage:
    """The page; without a descriptor one of this process alone, that says that nobody leads."""

    def __init__(self, descriptor: int = -1, clock: Callable[[], int] = boot_ns) -> None:
        """``descriptor`` is that of a file in memory; it stays the caller's. Raises OSError.

        The end of a lease is compared with ``clock``.
        """
        self._clock = clock
        if descriptor >= 0 and os.fstat(descriptor).st_size < PAGE_BYTES:
            os.ftruncate(descriptor, PAGE_BYTES)
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, PAGE_BYTES)
        self.cells = memoryview(self._memory).cast("Q")  # hot code reads them itself

    # -- what readers ask

    @property
    def is_leading(self) -> bool:
        """Whether this cluster leads at this instant."""
        return bool(self._clock() < self.cells[ENDS_NS])

    @property
    def ends_ns(self) -> int:
        """The end of this cluster's lease, by `boot_ns`; 0 if another one leads."""
        return int(self.cells[ENDS_NS])

    @property
    def token(self) -> int:
        """The token of the lead that this cluster has; 0 if it does not lead."""
        token = int(self.cells[TOKEN])
        return token if self.is_leading else 0

    @property
    def left_seconds(self) -> float:
        """Seconds until this cluster's lease ends, unless it is renewed; 0 if it does not lead."""
        return max(0.0, (int(self.cells[ENDS_NS]) - self._clock()) / 1e9)

    @property
    def session_seconds(self) -> float:
        """Seconds of a session, as granted; 0 while nothing was granted."""
        return int(self.cells[_SESSION_NS]) / 1e9

    def leader(self) -> Leader:
        """Return who leads, as far as is known here."""
        for _ in range(_READS):
            turn = self.cells[_TURN]
            length = min(int(self.cells[_LENGTH]), _MOST_TEXT)
            token, is_ours = int(self.cells[_LEADERS_TOKEN]), self.cells[_IS_OURS]
            text = bytes(self._memory[_TEXT_AT : _TEXT_AT + length])
            if turn % 2 == 0 and turn == self.cells[_TURN]:
                if is_ours and not self.is_leading:
                    break  # it has ended, and nobody has said so yet
                return Leader(token, text.decode("utf-8", "replace"))
            time.sleep(0)
        return Leader(0, "")

    def shown(self) -> dict[str, Any]:
        """Return all of it as ``status`` shows it."""
        leader, granted = self.leader(), self.session_seconds
        return {
            "is_leader": self.is_leading,
            "leader": leader.address or None,
            "token": leader.token or None,
            "session_timeout": granted or None,
        }

    # -- what the coordinator writes

    def show(self, standing: Standing, session_seconds: float) -> None:
        """Show what the store has said: who leads, and until when, if this cluster does."""
        cells = self.cells
        if not standing.is_ours or cells[TOKEN] != standing.token:
            self.end()
        cells[TOKEN] = standing.token if standing.is_ours else 0
        cells[_SESSION_NS] = int(session_seconds * 1e9)
        cells[ENDS_NS] = cells[BEGINS_NS] = standing.ends_ns
        self._tell(standing)

    def hold(self) -> None:
        """Let no call begin by this lease any more, while those that run go on."""
        self.cells[BEGINS_NS] = 0

    def end(self) -> None:
        """Show that this cluster does not lead, at once."""
        self.cells[BEGINS_NS] = self.cells[ENDS_NS] = 0

    def _tell(self, standing: Standing) -> None:
        """Write who leads, between two steps of a counter: it is odd while what stands there is half."""
        text = standing.leader.encode("utf-8", "replace")[:_MOST_TEXT]
        cells = self.cells
        if (cells[_LEADERS_TOKEN], cells[_IS_OURS]) == (standing.token, standing.is_ours) and text == bytes(
            self._memory[_TEXT_AT : _TEXT_AT + cells[_LENGTH]]
        ):
            return
        cells[_TURN] += 1 + cells[_TURN] % 2  # odd, also after a writer that was killed at it
        self._memory[_TEXT_AT : _TEXT_AT + len(text)] = text
        cells[_LENGTH], cells[_LEADERS_TOKEN], cells[_IS_OURS] = len(text), standing.token, standing.is_ours
        cells[_TURN] += 1


_page = LeadPage()


def lead_page() -> LeadPage:
    """Return the page of this process's cluster."""
    return _page


def use_lead_page(page: LeadPage) -> None:
    """Take ``page`` for that of the cluster, in this process and in those that it forks."""
    global _page
    _page = page
