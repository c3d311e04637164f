"""The old master of an upgrade, as the new one sees it: it sends `Go`, then its connections.

Owns the channel to it and returns events, which the supervisor handles. Runs in the new master, which is committed once
it has `Go`: until then it touches nothing that belongs to the old master.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Union

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import PROTOCOL, Asked, Go, Message, Serving, TookOver
from rpccluster.ipc.packets import Passing
from rpccluster.master.loop import Loop

__all__ = ["Gave", "GaveUp", "MayTakeOver", "OldMaster", "OldMasterEnded"]


class MayTakeOver(NamedTuple):
    """The old master has sent `Go`: everything is ours. Answer with `OldMaster.say_took_over`.

    ``groups`` are the names of its plugins' groups.
    """

    groups: Sequence[str] = ()


class GaveUp(NamedTuple):
    """The old master has ended, or given this one up, before it sent `Go`."""


class Gave(NamedTuple):
    """The old master has sent a message after `Go`; a connection comes with its descriptors."""

    channel: Channel
    message: Passing
    descriptors: list[int]


class OldMasterEnded(NamedTuple):
    """The old master has ended after it had sent `Go`."""


Event = Union[MayTakeOver, GaveUp, Gave, OldMasterEnded]


class OldMaster:
    """The old master, which has started this one."""

    def __init__(self, loop: Loop, channel: Channel, protocol: int, tell: Callable[[Event], None]) -> None:
        """``protocol`` is the old master's; ``tell`` gets each event."""
        self._loop = loop
        self._channel = channel
        self._protocol = protocol
        self._tell = tell
        self._has_said_go = False
        loop.watch(channel, self._hear)

    def say_serving(self, pid: int) -> None:
        """Tell the old master that the workers of this one, the process ``pid``, are ready."""
        # one of protocol 1 does not know the field ``protocol``
        self._channel.send(Serving(pid, min(PROTOCOL, self._protocol)))

    def say_took_over(self, groups: Sequence[str]) -> None:
        """Tell the old master that this one owns everything, and has ``groups``, too.

        One of protocol 1 has left, and knows no such message.
        """
        if self._protocol > 1:
            self._channel.send(TookOver(tuple(groups)))

    def say(self, message: Message) -> None:
        """Send ``message`` to the old master; one that has ended is no error."""
        if not self._channel.is_closed:
            self._channel.send(message)
            self._loop.mind_writing(self._channel)

    def say_why_it_ends(self, what: str) -> None:
        """Tell the old master, which may not have read yet who owns everything, that the end of this one is no crash.

        ``what`` is "term" if this one was told to stop, "usr2" if a third master takes over, "cont" if that has failed.
        """
        if self._protocol > 1 and not self._channel.is_closed:
            self._channel.send(Asked(what))

    def _hear(self) -> None:
        for message, descriptors in self._channel.receive_unopened():
            if isinstance(message, Go):
                self._has_said_go = True
                self._tell(MayTakeOver(message.groups))
            elif self._has_said_go:
                self._tell(Gave(self._channel, message, descriptors))
        if self._channel.is_closed:
            self._loop.unwatch(self._channel)
            self._channel.close()
            self._tell(OldMasterEnded() if self._has_said_go else GaveUp())
        else:
            self._loop.mind_writing(self._channel)  # it may have refused what this version does not know
