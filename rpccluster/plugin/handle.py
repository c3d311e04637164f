"""What a plugin's function gets as ``plugin``: its name, its listeners, and the words between it and its master.

Runs in the plugin's process. `rpccluster.plugin.function` makes it, and the handler of the stop signal sets
``stopping``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from rpccluster.ipc.scoreboard import CommonCell, Row
from rpccluster.live_settings import settings
from rpccluster.plugin.greenlets import cooperative_select

__all__ = ["Plugin", "Stopping"]

_MOST_SIGNALS = 4096  # that are taken out of the pipe at once


class Stopping:
    """Whether the plugin has been told to end. A pipe wakes those who wait: a signal's handler may take no lock.

    The signal itself writes into the pipe, too (`signal.set_wakeup_fd`), once `wake_by_signals` was called: Python runs
    a handler only between two steps of the main thread, which may be just about to wait.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._open()

    def _open(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)

    def wake_by_signals(self) -> None:
        """Have every signal with a handler wake those who wait. Call it in the main thread."""
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)

    def leave_to_parent(self) -> None:
        """Take another pipe, in a forked child: it is told to end by itself."""
        is_woken = signal.set_wakeup_fd(-1) == self._write_end
        os.close(self._read_end)
        os.close(self._write_end)
        self._open()
        if is_woken:
            self.wake_by_signals()

    def fileno(self) -> int:
        """Return the descriptor that is readable when the plugin has been told to end, or a signal has come."""
        return self._read_end

    def is_set(self) -> bool:
        """Return whether the plugin has been told to end."""
        return self._is_set

    def set(self) -> None:
        """Tell the plugin to end; the handler of the stop signal calls it."""
        if not self._is_set:
            self._is_set = True
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is full, so it wakes
            os.write(self._write_end, b"\0")

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the plugin is told to end, at most ``seconds``. Returns `is_set`. Greenlets run meanwhile."""
        give_up_at = None if seconds is None else time.monotonic() + seconds
        while not self._is_set:
            left = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            if not cooperative_select()([self._read_end], [], [], left)[0]:
                break
            self.look()
        return self._is_set

    def look(self) -> bool:
        """Return whether it was set, which stays in the pipe; any other signal is taken out."""
        if not self._is_set:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read_end, _MOST_SIGNALS)
            if self._is_set:  # only now
                self._wake()
        return self._is_set

    async def wait_async(self) -> None:
        """Wait on the running asyncio loop until the plugin is told to end."""
        import asyncio

        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        watched = os.dup(self._read_end)  # a loop watches a descriptor for one alone
        try:
            loop.add_reader(watched, lambda: told.set() if self.look() else None)
            await told.wait()
        finally:
            loop.remove_reader(watched)
            os.close(watched)


class Plugin:
    """The plugin itself, as its function sees it.

    ``name`` is the one in the configuration; ``slot`` numbers its processes from 0; ``listeners`` are sockets that
    listen already, in the order of ``bind``; ``settings`` are `rpccluster.settings`; ``stopping`` tells when to end.
    """

    def __init__(
        self,
        name: str,
        slot: int,
        listeners: Sequence[socket.socket],
        row: Row,
        tell_ready: Callable[[], None],
        wait_for_change: Callable[[float | None, Stopping], bool],
    ) -> None:
        """``tell_ready`` tells the master; ``wait_for_change`` is `rpccluster.plugin.changes.Changes.wait`."""
        self.name = name
        self.slot = slot
        self.listeners = list(listeners)
        self.settings: Mapping[str, Any] = settings
        self.stopping = Stopping()
        self._tell_ready = tell_ready
        self._wait_for_change = wait_for_change
        self._is_ready = False
        self._row = row

    def ready(self) -> None:
        """Tell the master that the plugin is ready: with ``ready = notify`` others wait for it. Once is enough."""
        if not self._is_ready:
            self._is_ready = True
            self._tell_ready()

    def alive(self) -> None:
        """Give a sign of life, from which ``timeout`` counts anew."""
        self._row[CommonCell.HEARTBEAT] = time.monotonic_ns()

    def settings_changed(self, timeout: float | None = None) -> bool:
        """Wait for the next version of the settings, and run the hook ``settings_changed`` here.

        Greenlets run meanwhile. From the first call on the hook runs here alone; a version that came before this call
        counts. Returns whether there was one: False after ``timeout`` seconds, and as soon as the plugin is told to
        end. One thread may call it.
        """
        return self._wait_for_change(timeout, self.stopping)

    async def wait_stopping(self) -> None:
        """Wait on the running asyncio loop until the plugin is told to end."""
        await self.stopping.wait_async()
