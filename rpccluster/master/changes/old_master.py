"""The old master of an upgrade, as the new one sees it: who says `Go`, and gives what it still holds.

Owns the channel to it; what follows from each event is the supervisor's. Runs in the new master, which has committed
itself when it has heard `Go`: until then it has touched nothing that is the old one's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, Union

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import PROTOCOL, Go, Serving, TookOver
from rpccluster.ipc.packets import Passing
from rpccluster.master.loop import Loop

__all__ = ["Gave", "GaveUp", "MayTakeOver", "OldMaster", "OldMasterEnded"]


class MayTakeOver(NamedTuple):
    """The old master has said `Go`: everything is ours. To be answered by `OldMaster.say_took_over`."""


class GaveUp(NamedTuple):
    """The old master has ended, or given us up, before it said `Go`."""


class Gave(NamedTuple):
    """The old master says something after `Go`, or gives a connection: then its descriptors come along."""

    channel: Channel
    message: Passing
    descriptors: list[int]


class OldMasterEnded(NamedTuple):
    """The old master, which had said `Go`, has ended."""


Event = Union[MayTakeOver, GaveUp, Gave, OldMasterEnded]


class OldMaster:
    """The one that has started us."""

    def __init__(self, loop: Loop, channel: Channel, protocol: int, tell: Callable[[Event], None]) -> None:
        """``protocol`` is what it speaks; ``tell`` is told what happens."""
        self._loop = loop
        self._channel = channel
        self._protocol = protocol
        self._tell = tell
        self._has_said_go = False
        loop.watch(channel, self._hear)

    def say_serving(self) -> None:
        """Our workers are ready. An old master of protocol 1 would not understand that one is named."""
        self._channel.send(Serving(os.getpid(), min(PROTOCOL, self._protocol)))

    def say_took_over(self) -> None:
        """We have everything. One of protocol 1 has left already, and knows no such message."""
        if self._protocol > 1:
            self._channel.send(TookOver())

    def _hear(self) -> None:
        for message, descriptors in self._channel.receive_unopened():
            if isinstance(message, Go):
                self._has_said_go = True
                self._tell(MayTakeOver())
            elif self._has_said_go:
                told = Gave(self._channel, message, descriptors)
                self._loop.guard.attempt("heed the old master", self._tell, told)
        if self._channel.is_closed:
            self._loop.unwatch(self._channel)
            self._channel.close()
            self._tell(OldMasterEnded() if self._has_said_go else GaveUp())
