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

from rpccluster.leading.store import Standing, boot_ns

__all__ = ["PAGE_BYTES", "LeadPage", "Leader", "lead_page", "use_lead_page"]

PAGE_BYTES = 4096
_ENDS_NS, _TOKEN, _SESSION_NS, _TURN, _LENGTH, _LEADERS_TOKEN, _IS_OURS = range(7)
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

    def __init__(self, descriptor: int = -1) -> None:
        """``descriptor`` is that of a file in memory; it stays the caller's. Raises OSError."""
        if descriptor >= 0 and os.fstat(descriptor).st_size < PAGE_BYTES:
            os.ftruncate(descriptor, PAGE_BYTES)
        self._memory = mmap.mmap(descriptor, PAGE_BYTES)
        self.cells = memoryview(self._memory).cast("Q")  # hot code reads the first two

    # -- what readers ask

    @property
    def is_leading(self) -> bool:
        """Whether this cluster leads at this instant."""
        return bool(boot_ns() < self.cells[_ENDS_NS])

    @property
    def token(self) -> int:
        """The token of the lead that this cluster has; 0 if it does not lead."""
        token = int(self.cells[_TOKEN])
        return token if self.is_leading else 0

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

    # -- what the coordinator writes

    def show(self, standing: Standing, session_seconds: float) -> None:
        """Show what the store has said: who leads, and until when, if this cluster does."""
        cells = self.cells
        if not standing.is_ours or cells[_TOKEN] != standing.token:
            cells[_ENDS_NS] = 0
        cells[_TOKEN] = standing.token if standing.is_ours else 0
        cells[_SESSION_NS] = int(session_seconds * 1e9)
        cells[_ENDS_NS] = standing.ends_ns
        self._tell(standing)

    def end(self) -> None:
        """Show that this cluster does not lead, at once."""
        self.cells[_ENDS_NS] = 0

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
