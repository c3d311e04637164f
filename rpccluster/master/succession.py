"""USR2 as a course of events: from starting a new master to leaving, and from being one to taking over.

Joins `rpccluster.master.upgrade` with the running cluster, on whichever side this master is.
"""

from __future__ import annotations

import os
import signal
from typing import Callable

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Go, Message, Serving
from rpccluster.log import logger
from rpccluster.master.loop import Loop
from rpccluster.master.upgrade import Upgrade
from rpccluster.system import System

__all__ = ["Heir", "Succession"]


class Succession:
    """The upgrade under way, if any. ``outcome`` is None while it runs, "" if it went well, else the reason."""

    def __init__(
        self,
        system: System,
        loop: Loop,
        on_serving: Callable[[Channel], None],
        on_message: Callable[[Message], None],
        on_heir_lost: Callable[[], None],
    ) -> None:
        """``on_serving`` is given the channel to the new master; ``on_message`` what that says afterwards;
        ``on_heir_lost`` is called if it ends before this one."""
        self._system = system
        self._loop = loop
        self._on_serving = on_serving
        self._on_message = on_message
        self._on_heir_lost = on_heir_lost
        self._to_heir: Channel | None = None
        self._upgrade: Upgrade | None = None
        self.outcome: str | None = ""
        self.heir = 0

    @property
    def is_under_way(self) -> bool:
        """Whether a new master has been started and has not said yet that it serves."""
        return self._upgrade is not None

    def begin(self, start: Callable[[], Upgrade | None], is_refused: str) -> None:
        """Start a new master, unless there is a reason not to."""
        reason = "an upgrade is under way" if self._upgrade else is_refused
        if reason:
            logger.error("Upgrade refused: %s", reason)
            self.outcome = None if self._upgrade else reason
            return
        self.outcome = None
        self._upgrade = start()
        if self._upgrade is None:
            self.outcome = "no process could be had"
            return
        logger.info("Booting new master with pid: %d", self._upgrade.pid)
        try:
            self._loop.watch(self._upgrade.channel, self._hear)
        except OSError as error:
            self.give_up(f"it cannot be watched: {error}")

    def _hear(self) -> None:
        assert self._upgrade is not None
        channel = self._upgrade.channel
        for message, _ in channel.receive():
            if isinstance(message, Serving):
                self.heir, self._to_heir = message.pid, channel
                channel.send(Go())
                self._loop.unwatch(channel)
                self._loop.watch(channel, self._hear_heir)
                self._upgrade, self.outcome = None, ""
                self._on_serving(channel)
                return
        if channel.is_closed:
            self._fail("the new master could not start; its own log lines say why")

    def _hear_heir(self) -> None:
        assert self._to_heir is not None
        for message, _ in self._to_heir.receive():
            self._on_message(message)
        if self._to_heir.is_closed:
            self._loop.unwatch(self._to_heir)
            self._on_heir_lost()

    @property
    def has_told_all(self) -> bool:
        """Whether nothing waits to be sent to the new master."""
        return self._to_heir is None or not self._to_heir.has_unsent

    def check_deadline(self, now: float) -> None:
        """Give up a new master that takes too long."""
        if self._upgrade is not None and now > self._upgrade.give_up_at:
            self.give_up("the new master took too long")

    def give_up(self, reason: str) -> None:
        """End the new master, if there is one, at once: it holds the pidfile's lock, too."""
        if self._upgrade is not None:
            self._system.kill(self._upgrade.pid, signal.SIGKILL)
            self._fail(reason)

    def _fail(self, reason: str) -> None:
        assert self._upgrade is not None
        self._loop.unwatch(self._upgrade.channel)
        self._upgrade.channel.close()
        self._upgrade, self.outcome = None, reason
        logger.error("Upgrade failed, nothing has changed: %s", reason)

    def close_in_child(self) -> None:
        """In a forked child: close the copy."""
        for channel in (self._upgrade.channel if self._upgrade else None, self._to_heir):
            if channel is not None:
                channel.close()


class Heir:
    """The new master's side: waits for the old one's word."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        on_go: Callable[[], None],
        on_lost: Callable[[], None],
        on_message: Callable[[Channel, Message, list[int]], None],
        on_old_gone: Callable[[], None],
    ) -> None:
        """``on_lost`` is called if the old master ends, or gives up, before it said `Go`; ``on_message`` is given
        what it says after that, ``on_old_gone`` is called when it has ended."""
        self._loop = loop
        self._channel = channel
        self._on_go = on_go
        self._on_lost = on_lost
        self._on_message = on_message
        self._on_old_gone = on_old_gone
        self._has_gone = False
        loop.watch(channel, self._hear)

    @property
    def has_old_master(self) -> bool:
        """Whether the old master lives, and may have more to give."""
        return not self._channel.is_closed

    def say_serving(self) -> None:
        """Our workers are ready."""
        self._channel.send(Serving(os.getpid()))

    def _hear(self) -> None:
        channel = self._channel
        for message, descriptors in channel.receive():
            if isinstance(message, Go):
                self._has_gone = True
                self._on_go()
            else:
                self._on_message(channel, message, descriptors)
        if channel.is_closed:
            self._loop.unwatch(channel)
            channel.close()
            if self._has_gone:
                self._on_old_gone()
            else:
                self._on_lost()

    def close_in_child(self) -> None:
        """In a forked child: close the copy."""
        self._channel.close()
