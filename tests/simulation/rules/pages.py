"""What must hold of the page in peace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpccluster.worker.lifecycle import State

from ..children.pages import Page

if TYPE_CHECKING:
    from ..afternoon import Afternoon

__all__ = ["page_is_told"]

PATIENCE = 3.0  # seconds, for an answer


def page_is_told(afternoon: Afternoon) -> str:
    """There is one process of the page, and its master has answered it lately."""
    if not afternoon.plan.pages:
        return ""
    pages = list(afternoon.world.of_noun[Page.noun].values())
    if len(pages) != 1:
        return f"there are {len(pages)} processes of the page"
    silent = afternoon.world.now - pages[0].told_at
    return "" if pages[0].state is State.SERVING and silent < PATIENCE else f"{pages[0].name} is told nothing"
