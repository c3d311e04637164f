"""A worker's part in a change of the settings: it votes, then switches. Runs in the worker.

The service's hooks run in greenlets; ``settings_changed`` is told of one change after another. The switch itself runs
in the hub, between two steps of all calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gevent

from rpccluster.child.settings import ServiceSettings, Untold, changed_keys
from rpccluster.config.declared import with_places
from rpccluster.errors import SettingsRefused
from rpccluster.failure import error_text
from rpccluster.ipc.messages import Propose, Switch, Switched, Vote
from rpccluster.ipc.scoreboard import CommonCell, Row
from rpccluster.live_settings import Given, Version, settings
from rpccluster.log import logger
from rpccluster.worker.current import Call
from rpccluster.worker.pinned_settings import PinnedSettings

__all__ = ["Voting"]


class Voting:
    """The votes and switches of one worker."""

    def __init__(
        self,
        own: ServiceSettings,
        row: Row,
        running: Callable[[], Iterable[Call]],
        send: Callable[[Any], object],
        retire: Callable[[str], object],
    ) -> None:
        """``running`` returns the running calls, ``send`` tells the master, ``retire`` asks it for a successor."""
        self._own = own
        self._row = row
        self._send = send
        self._retire = retire
        self._pinned = PinnedSettings(running)
        self._untold = Untold()
        self._places: Mapping[str, str] = {}  # of the values in force
        self._prepared: tuple[Given, Version] | None = None  # what the last proposal makes here
        row[CommonCell.SETTINGS_VERSION] = settings.newest.number

    def propose(self, message: Propose) -> None:
        """Vote on a new version, soon."""
        self._prepared = None
        gevent.spawn(self._vote, message.attempt, _given(message))

    def _vote(self, attempt: int, given: Given) -> None:
        try:
            self._prepared = given, self._own.prepare(given)
            refusal = ""
        except SettingsRefused as error:
            refusal = str(error)
        except BaseException as error:
            refusal = error_text(error)
        self._send(Vote(attempt, refusal))

    def switch(self, message: Switch) -> None:
        """Put a version in force: at once if this worker has voted for it, else as soon as it is prepared."""
        given = _given(message)
        if given.number <= settings.newest.number:
            return
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] == given:
            self._put_in_force(*prepared)
        else:
            gevent.spawn(self._catch_up, given)

    def _catch_up(self, given: Given) -> None:
        try:
            version = self._own.prepare(given)
        except BaseException as error:
            self._fail("it refuses the settings", error_text(error), error)
        else:
            if given.number > settings.newest.number:  # the check may have taken long
                self._put_in_force(given, version)

    def _put_in_force(self, given: Given, new: Version) -> None:
        self._pinned.switch(new)
        self._own.note_in_force(given)
        self._places = given.places
        self._row[CommonCell.SETTINGS_VERSION] = new.number
        self._send(Switched(new.number))
        gevent.spawn(self._tell)

    def _tell(self) -> None:
        while (change := self._untold.begin()) is not None:
            try:
                self._own.tell(*change)
            except BaseException as error:
                what = with_places(changed_keys(*change), self._places)
                self._fail("settings_changed failed", f"told of {what}", error)
            finally:
                self._untold.end()

    def _fail(self, reason: str, detail: str, error: BaseException) -> None:
        logger.error("Settings: %s: %s", reason, detail, exc_info=error)
        self._retire(reason)

    def sweep(self) -> None:
        """Forget the calls that have ended."""
        self._pinned.sweep()


def _given(message: Propose | Switch) -> Given:
    return Given(message.version, message.texts, message.places)
