"""The master's event loop: descriptors and their callbacks, on a selector. Runs in the master alone.

Owns the selector. A forked child closes its copy of the selector and changes nothing in it.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from contextlib import AbstractContextManager
from typing import Any, Callable

from rpccluster.ipc.channel import Channel
from rpccluster.master.guard import Guard

__all__ = ["Loop"]

Callback = Callable[[], None]

BARRED_SECONDS = 0.02  # until the loop tries a channel again that the kernel had no room for
FAILED_SECONDS = 0.02  # of rest after a callback has failed, because its descriptor is still readable


class Loop:
    """Watches descriptors for reading, and for writing while their owner has something to write."""

    def __init__(
        self,
        guard: Guard | None = None,
        selector: selectors.BaseSelector | None = None,
        waiting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``guard`` attempts the callbacks; the loop enters ``waiting`` only while it waits,
        and rests with ``sleep``."""
        self.guard = guard or Guard()
        self._selector = selector or selectors.DefaultSelector()
        self._barred: set[Channel] = set()
        self._has_failed = False
        self._waiting = waiting
        self._sleep = sleep

    def watch(self, source: Any, on_readable: Callback) -> None:
        """Call ``on_readable`` whenever ``source``, a descriptor or an object with ``fileno()``, is readable."""
        self._selector.register(source, selectors.EVENT_READ, (on_readable, None))

    def watch_writing(self, source: Any, on_writable: Callback | None) -> None:
        """Also call ``on_writable`` while ``source`` has room; None ends that."""
        on_readable, present = self._selector.get_key(source).data
        if (on_writable is None) != (present is None):
            self.rewatch(source, on_readable, on_writable)

    def rewatch(self, source: Any, on_readable: Callback | None, on_writable: Callback | None) -> None:
        """Replace the callbacks of ``source``, which is already watched; at least one is needed."""
        if self._selector.get_key(source).data != (on_readable, on_writable):
            events = (selectors.EVENT_READ if on_readable else 0) | (selectors.EVENT_WRITE if on_writable else 0)
            self._selector.modify(source, events, (on_readable, on_writable))

    def mind_writing(self, channel: Channel) -> None:
        """Flush ``channel``, which is watched for reading, as soon as there is room for its queue.

        One that is watched no more is no error: its process has ended and was heard out, so nobody reads the queue.
        """
        if channel.is_barred:
            self._barred.add(channel)
        with contextlib.suppress(KeyError):
            self.watch_writing(channel, (lambda: self._flush(channel)) if channel.wants_to_write else None)

    def unwatch(self, source: Any) -> None:
        """Stop watching ``source``; call this before the descriptor is closed. An unwatched source is no error."""
        try:
            self._selector.unregister(source)
        except (KeyError, ValueError):
            pass

    def turn(self, seconds: float | None) -> None:
        """Wait at most ``seconds``, or without end if None, for events, and call their callbacks.

        If a callback unwatches a source, no event of the same turn reaches it. If a callback fails, it is called again
        in the next turn, after a rest, so that it cannot take a whole CPU. Raises OSError if the loop cannot wait.
        """
        if self._has_failed:
            self._has_failed = False
            self._sleep(FAILED_SECONDS)
        for key, events in self._wait(BARRED_SECONDS if self._barred else seconds):
            on_readable, on_writable = key.data
            if events & selectors.EVENT_READ and on_readable is not None and self._is_watched(key):
                self._call(on_readable)
            if events & selectors.EVENT_WRITE and on_writable is not None and self._is_watched(key):
                self._call(on_writable)

        barred, self._barred = self._barred, set()
        for channel in barred:
            if not channel.is_closed:
                self._call(lambda channel=channel: self._flush(channel))  # type: ignore[misc]

    def _wait(self, seconds: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        try:
            with self._waiting():
                return self._selector.select(seconds)
        except OSError:  # the system has no memory for it now
            self._has_failed = True
            raise

    def _flush(self, channel: Channel) -> None:
        channel.flush()
        self.mind_writing(channel)

    def _call(self, callback: Callback) -> None:
        if not self.guard.attempt("handle an event of a descriptor", callback):
            self._has_failed = True

    def _is_watched(self, key: selectors.SelectorKey) -> bool:
        """Return whether ``key`` is still watched; another source may have its descriptor's number by now."""
        present = self._selector.get_map().get(key.fd)
        return present is not None and present.fileobj is key.fileobj

    def close(self) -> None:
        """Close this process's copy of the selector; copies of other processes go on."""
        self._selector.close()
