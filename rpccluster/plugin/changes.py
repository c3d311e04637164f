"""Tells a plugin's hook ``settings_changed`` of each change. Runs in the plugin's process.

It is told in a native thread, until the plugin calls ``plugin.settings_changed`` for the first time: from then on in
the thread, or greenlet, that calls that. ``settings_check`` always runs in a native thread, since a vote is due also
while the plugin computes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from _thread import allocate_lock, start_new_thread
from collections.abc import Mapping
from typing import Callable

from rpccluster.child.settings import ServiceSettings, Untold, changed_keys
from rpccluster.config.declared import with_places
from rpccluster.live_settings import Version
from rpccluster.log import logger
from rpccluster.plugin.greenlets import cooperative_select
from rpccluster.plugin.handle import Stopping

__all__ = ["Changes", "unblock_signals"]

_MOST_WAKES = 4096  # that are taken out of the pipe at once


class Changes:
    """The changes of the settings that the plugin's hook has yet to be told, and the one who tells it."""

    def __init__(self, own: ServiceSettings, fail: Callable[[], None]) -> None:
        """``fail`` is called when the hook has raised."""
        self._own = own
        self._fail = fail
        self._lock = allocate_lock()
        self._untold = Untold()
        self._places: Mapping[str, str] = {}
        self._pipe: tuple[int, int] | None = None  # wakes the plugin's own thread; there is one once that has called

    def start(self) -> None:
        """Count changes from the version that is in force now."""
        self._untold = Untold()

    def note(self, places: Mapping[str, str]) -> None:
        """Note that another version is in force, whose values stand at ``places``."""
        self._places = places
        if self._pipe is None:
            start_new_thread(self._tell_from_here, ())
        else:
            self._wake()

    def leave_to_parent(self) -> None:
        """Take another pipe, in a forked child: nothing changes there."""
        if self._pipe is not None:
            for end in self._pipe:
                with contextlib.suppress(OSError):  # the plugin may have closed it
                    os.close(end)
            self._open()

    def wait(self, seconds: float | None, stopping: Stopping) -> bool:
        """Wait for a change of which the hook has not been told, and tell it here. Returns whether there was one.

        Gives up after ``seconds``, and when the plugin is told to end.
        """
        give_up_at = None if seconds is None else time.monotonic() + seconds
        if self._pipe is None:
            self._open()
        assert self._pipe is not None
        while not self._tell():
            left = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            if stopping.is_set() or not cooperative_select()([self._pipe[0], stopping], [], [], left)[0]:
                return False
            stopping.look()
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipe[0], _MOST_WAKES)
        return True

    def _open(self) -> None:
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)

    def _wake(self) -> None:
        assert self._pipe is not None
        with contextlib.suppress(OSError):  # it is full, so it wakes; or the plugin has closed it
            os.write(self._pipe[1], b"\0")

    def _tell_from_here(self) -> None:
        unblock_signals()
        while self._pipe is None and self._tell():
            pass
        if self._pipe is not None:
            self._wake()  # what has come while the hook ran is for the plugin's own thread

    def _tell(self) -> bool:
        """Tell the hook of the change, if there is one that it is not being told of."""
        with self._lock:
            change = self._untold.begin()
        if change is None:
            return False
        try:
            self._own.tell(*change)
        except BaseException as error:
            self._note_failure(change, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._untold.end()
        return True

    def _note_failure(self, change: tuple[Version, Version], error: BaseException) -> None:
        what = with_places(changed_keys(*change), self._places)
        logger.error("Settings: settings_changed failed: told of %s", what, exc_info=error)
        self._fail()


def unblock_signals() -> None:
    """Unblock all signals in this thread, since a program that a hook starts inherits what is blocked."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
