"""Follows the service's settings: a task sees the version that was in force when it began. Runs in the task process.

It has no vote. The master sends each version, then writes its number into a cell; the process compares that before each
task, and reads the message only if it is a new one.
"""

from __future__ import annotations

import select

from rpccluster.child.assignment import Assignment, TaskPart
from rpccluster.errors import SettingsRefused
from rpccluster.ipc.messages import Switch
from rpccluster.ipc.scoreboard import CommonCell, TaskCell
from rpccluster.live_settings import Given, settings
from rpccluster.log import logger
from rpccluster.tasks.code import Code

__all__ = ["Following"]

_SETTINGS = int(TaskCell.SETTINGS)
_MESSAGE_SECONDS = 5.0  # for a message that the master has sent, or has queued


class Following:
    """Puts new versions in force between two tasks."""

    def __init__(self, assignment: Assignment[TaskPart], code: Code) -> None:
        self._cells = assignment.row.cells
        self._channel = assignment.channel
        self._code = code
        self._number = assignment.settings.number
        self._cells[CommonCell.SETTINGS_VERSION] = self._number

    def is_behind(self) -> bool:
        """Return whether there is a version that is not in force here."""
        return self._cells[_SETTINGS] > self._number

    def catch_up(self) -> None:
        """Put the newest version in force, and tell the hook of it. Raises all that the hook raises.

        Values that the code refuses are left out: they have been voted on, and a task has no vote.
        """
        given = self._newest()
        if given is None:
            return
        self._number = given.number
        old = settings.newest
        try:
            new = self._code.prepare(given)
        except SettingsRefused as error:
            logger.error("A process of a pool keeps the settings of version %d: %s", old.number, error)
            return
        settings.put_in_force(new)
        self._cells[CommonCell.SETTINGS_VERSION] = new.number
        self._code.tell(old, new)

    def _is_told(self) -> bool:
        """Wait for a message of the master. Returns False if none comes in time."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        return bool(poll.poll(_MESSAGE_SECONDS * 1000))

    def _newest(self) -> Given | None:
        """Return the newest version that the master has sent; None if none comes in time."""
        newest: Given | None = None
        while newest is None or newest.number < self._cells[TaskCell.SETTINGS]:
            if self._channel.is_closed or not self._is_told():
                break
            for message, _ in self._channel.receive():
                if isinstance(message, Switch):
                    newest = Given(message.version, message.texts, message.places)
        return newest
