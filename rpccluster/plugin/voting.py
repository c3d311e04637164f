"""A function plugin's part in a change of the settings: native threads of its process vote, and switch.

So a plugin votes whatever it does, asleep or computing. The threads are native also where the plugin patches with
gevent, since this module is imported before it. One listens to the master. Each check runs in a thread of its own, so
that one that hangs spoils no later vote. `changes` says where ``settings_changed`` runs.

A function may close descriptors that it does not know, or become another program. Then the master sees the end of the
channel, and asks no more; here nothing is read or closed under a number that may be another file's by now.

Beside code that computes, a thread waits up to 5 ms for its turn after each system call. So the turns are shorter while
a vote or a switch is under way.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from _thread import allocate_lock, start_new_thread

from rpccluster.child.settings import ServiceSettings
from rpccluster.errors import SettingsRefused
from rpccluster.failure import error_text
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Message, Propose, Switch, Switched, Vote, WantsToRetire
from rpccluster.ipc.scoreboard import CommonCell, Row
from rpccluster.live_settings import Given, Version, settings
from rpccluster.log import logger, set_level
from rpccluster.plugin.changes import Changes, unblock_signals

__all__ = ["Voting"]

SHORT_TURN_SECONDS = 0.0005

_poll = select.poll
_IN, _OUT = select.POLLIN, select.POLLOUT


class Voting:
    """The votes and switches of one plugin's process, and all that it tells its master."""

    def __init__(self, own: ServiceSettings, channel: Channel, row: Row) -> None:
        self._own = own
        self._channel = channel
        self._inode = os.fstat(channel.fileno()).st_ino
        self._row = row
        self._lock = allocate_lock()
        self._prepared: tuple[Given, Version] | None = None  # what the last proposal makes here
        self._attempt = 0
        self._short_turns = _ShortTurns()
        self.changes = Changes(own, lambda: self.say(WantsToRetire("settings_changed failed")))

    def start(self) -> None:
        """Begin to listen to the master. Signals are for the main thread: one that came here would end no sleep."""
        self._row[CommonCell.SETTINGS_VERSION] = settings.newest.number
        self.changes.start()
        usual = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        start_new_thread(self._listen, ())
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)

    def leave_to_parent(self) -> None:
        """Close the channel, in a forked child."""
        if self._has_channel():
            self._channel.close()

    def say(self, message: Message) -> None:
        """Send a message to the master; any thread may call it."""
        with self._lock:
            if self._has_channel():
                self._channel.send(message)

    def _has_channel(self) -> bool:
        """Return whether the channel is open, and its number still its own; else forget it."""
        if self._channel.is_closed:
            return False
        try:
            is_own = os.fstat(self._channel.fileno()).st_ino == self._inode
        except OSError:
            is_own = False
        if not is_own:
            self._channel.forget()
        return is_own

    def _listen(self) -> None:
        while not self._channel.is_closed:
            poller = _poll()
            poller.register(self._channel.fileno(), _IN | (_OUT if self._channel.wants_to_write else 0))
            poller.poll()
            with self._short_turns:
                for message in self._receive():
                    self._obey(message)

    def _receive(self) -> list[Message]:
        with self._lock:
            if not self._has_channel():
                return []
            messages = self._channel.receive()
            self._channel.flush()
        return [message for message, _ in messages]

    def _obey(self, message: Message) -> None:
        if isinstance(message, Propose):
            self._attempt, self._prepared = message.attempt, None
            start_new_thread(self._vote, (message.attempt, Given(message.version, message.texts, message.places)))
        elif isinstance(message, Switch):
            if "log_level" in message.options:
                set_level(message.options["log_level"])
            self._switch(Given(message.version, message.texts, message.places))

    def _vote(self, attempt: int, given: Given) -> None:
        unblock_signals()
        with self._short_turns:
            self.say(Vote(attempt, self._prepare(attempt, given)))

    def _prepare(self, attempt: int, given: Given) -> str:
        """Prepare a version. Returns why it is refused; empty if it is not."""
        try:
            prepared = given, self._own.prepare(given)
        except SettingsRefused as error:
            return str(error)
        except BaseException as error:
            return error_text(error)
        if attempt == self._attempt:  # else there is a later one by now
            self._prepared = prepared
        return ""

    def _switch(self, given: Given) -> None:
        """Put a version in force; one that it has not voted for, since it was booting, is prepared now."""
        if given.number <= settings.newest.number:
            return
        prepared, self._prepared = self._prepared, None
        try:
            new = prepared[1] if prepared is not None and prepared[0] == given else self._own.prepare(given)
        except BaseException as error:
            logger.error("Settings: it refuses them: %s", error_text(error))
            self.say(WantsToRetire("it refuses the settings"))
            return
        settings.put_in_force(new)
        self._own.note_in_force(given)
        self._row[CommonCell.SETTINGS_VERSION] = new.number
        self.say(Switched(new.number))
        self.changes.note(given.places)


class _ShortTurns:
    """Has the threads of this process take turns more often, during its ``with`` blocks in any of them."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._blocks = 0
        self._usual_seconds = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._blocks:
                self._usual_seconds = sys.getswitchinterval()
                sys.setswitchinterval(min(self._usual_seconds, SHORT_TURN_SECONDS))
            self._blocks += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                sys.setswitchinterval(self._usual_seconds)
