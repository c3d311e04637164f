"""A function plugin's part in a change of the settings: a native thread of its process votes, then switches.

So a plugin votes whatever it does, asleep or computing. The hooks of its module run in that thread. The thread and its
lock are native also where the plugin patches with gevent, since this module is imported before it.
"""

from __future__ import annotations

import select
from _thread import allocate_lock, start_new_thread

from rpccluster.child.settings import ServiceSettings
from rpccluster.errors import SettingsRefused
from rpccluster.failure import error_text
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Message, Propose, Switch, Switched, Vote, WantsToRetire
from rpccluster.ipc.scoreboard import CommonCell, Row
from rpccluster.live_settings import Given, Version, settings
from rpccluster.log import logger

__all__ = ["Voting"]

_poll = select.poll
_IN, _OUT = select.POLLIN, select.POLLOUT


class Voting:
    """The votes and switches of one plugin's process, and all that it tells its master."""

    def __init__(self, own: ServiceSettings, channel: Channel, row: Row) -> None:
        self._own = own
        self._channel = channel
        self._row = row
        self._lock = allocate_lock()
        self._prepared: tuple[Given, Version] | None = None  # what the last proposal makes here

    def start(self) -> None:
        """Begin to listen to the master."""
        self._row[CommonCell.SETTINGS_VERSION] = settings.newest.number
        start_new_thread(self._listen, ())

    def leave_to_parent(self) -> None:
        """Close the channel, in a forked child."""
        self._channel.close()

    def say(self, message: Message) -> None:
        """Send a message to the master; any thread may call it."""
        with self._lock:
            self._channel.send(message)

    def _listen(self) -> None:
        poller = _poll()
        while not self._channel.is_closed:
            poller.register(self._channel.fileno(), _IN | (_OUT if self._channel.wants_to_write else 0))
            poller.poll()
            with self._lock:
                messages = self._channel.receive()
                self._channel.flush()
            for message, _ in messages:
                self._obey(message)

    def _obey(self, message: Message) -> None:
        if isinstance(message, Propose):
            self.say(Vote(message.attempt, self._prepare(Given(message.version, message.texts, message.places))))
        elif isinstance(message, Switch):
            self._switch(Given(message.version, message.texts, message.places))

    def _prepare(self, given: Given) -> str:
        """Prepare a version. Returns why it is refused; empty if it is not."""
        self._prepared = None
        try:
            self._prepared = given, self._own.prepare(given)
        except SettingsRefused as error:
            return str(error)
        except BaseException as error:
            return error_text(error)
        return ""

    def _switch(self, given: Given) -> None:
        if given.number <= settings.newest.number:
            return
        if self._prepared is None or self._prepared[0] != given:
            refusal = self._prepare(given)
            if refusal:
                logger.error("Settings: it refuses them: %s", refusal)
                self.say(WantsToRetire("it refuses the settings"))
        if self._prepared is not None:
            old, new = settings.newest, self._prepared[1]
            settings.put_in_force(new)
            self._row[CommonCell.SETTINGS_VERSION] = new.number
            self.say(Switched(new.number))
            try:
                self._own.tell(old, new)
            except BaseException as error:
                logger.error("Settings: settings_changed failed", exc_info=error)
                self.say(WantsToRetire("settings_changed failed"))
