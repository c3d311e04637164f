"""Keeps the version of the settings with which a call began, until its end. Runs in the worker.

A call that never looks at them pays nothing. A change of the version, which is rare, notes the calls that run at that
moment; a call that looks afterwards finds itself among them, or sees the newest version. As long as none is noted, a
look costs no more than one into a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rpccluster.live_settings import Version, settings
from rpccluster.worker.current import NATIVE_CALL, Call, runner_of_call

__all__ = ["PinnedSettings"]


class PinnedSettings:
    """The running calls that see an older version than the newest."""

    def __init__(self, running: Callable[[], Iterable[Call]]) -> None:
        """``running`` returns the calls that have begun and not ended."""
        self._running = running
        self._pins: dict[int, tuple[Any, Version]] = {}  # by the identity of the call's message, which is kept alive
        settings.keep_for_calls(self._pins, self._of_present_call)

    def switch(self, new: Version) -> None:
        """Make ``new`` the newest version, and keep the one before for the calls that run."""
        old = settings.newest
        running = {id(call.message): call.message for call in self._running()}
        self._forget_others(running)
        for number, message in running.items():
            self._pins.setdefault(number, (message, old))
        settings.put_in_force(new)

    def sweep(self) -> None:
        """Forget the calls that have ended."""
        if self._pins:
            self._forget_others({id(call.message) for call in self._running()})

    def _forget_others(self, running: Iterable[int]) -> None:
        for number in self._pins.keys() - running:
            del self._pins[number]

    def _of_present_call(self) -> Version | None:
        """Return the version of the call that runs here; None for the newest."""
        native = NATIVE_CALL.get()
        if native is not None:
            return native.settings
        runner = runner_of_call()
        if runner is None:
            return None
        _, version = self._pins.get(id(runner.call), (None, None))
        return version
