"""The leadership of the cluster of this process, as its own code asks for it: ``rpccluster.leadership``."""

from __future__ import annotations

from rpccluster.errors import NotLeader
from rpccluster.leading.page import lead_page

__all__ = ["Leadership", "leadership"]


class Leadership:
    """Whether this cluster leads, by the clock at the instant of the question. Any process, any thread; no I/O.

    A process that is stopped between the question and what it does may have lost the lead meanwhile: hand the ``token``
    to the store that you write to, if that store can refuse an older one.
    """

    __slots__ = ()

    @property
    def is_leader(self) -> bool:
        """Whether this cluster leads."""
        return lead_page().is_leading

    @property
    def token(self) -> int:
        """The number of the lead that this cluster has, higher than that of every holder before; 0 without it."""
        return lead_page().token

    def check(self) -> None:
        """Raise `NotLeader` if this cluster does not lead."""
        page = lead_page()
        if not page.is_leading:
            raise NotLeader(message=page.leader().address or "none")

    def __repr__(self) -> str:
        return f"<leadership: {'leads' if self.is_leader else 'does not lead'}>"


leadership = Leadership()
