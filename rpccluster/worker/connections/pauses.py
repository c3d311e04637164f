"""Why a connection is not read for now, or ever: there may be several reasons at once. Pure; runs in the worker."""

from __future__ import annotations

import enum

__all__ = ["Pause"]


class Pause(enum.IntFlag):
    """A reason not to read a connection; it is read while there is none.

    ``TURN`` ends when a greenlet is free, or others who send much have had their turn; ``PENDING`` when half of
    ``max_pending_calls`` are left; ``UNREAD`` when the peer has read most of its replies; ``ENDED`` never.
    """

    NOT = 0
    TURN = 1  # the worker runs as many calls as it may, or others who send much wait for their turn
    PENDING = 2  # this connection has as many unanswered calls as it may
    UNREAD = 4  # its peer does not read its replies
    ENDED = 8  # nothing more is to be read
