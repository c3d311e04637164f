"""The thread that receives for `Client.call_async`, for whose calls no thread waits.

It takes turns with the waiting threads, as long as such calls are pending. When there were none for a while it ends,
and the next such call starts another. Owns the bell that wakes it, without a lock, since a signal handler or a
finalizer may ring it in the middle of another ring.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
from collections import deque
from typing import Protocol

from rpccluster.client.core.exchange.call import Call
from rpccluster.client.threads.native import log_error, start_thread
from rpccluster.client.threads.sockets import NOW
from rpccluster.errors import Lost

__all__ = ["Attended", "Reader", "Started"]

_REST_SECONDS = 5.0


class Attended(Protocol):
    """The connection that a reader attends, as the reader sees it."""

    has_ended: bool

    def attend(self, me: Call) -> bool:
        """Wait for one event. Returns False if there is nothing to wait for."""

    def dismiss(self, reader: Reader) -> bool:
        """Let the reader end, unless there is something to wait for again."""

    def close(self, reason: str) -> None:
        """End all calls of the connection."""

    def tell_the_rest(self) -> None:
        """Tell the waiters that were left over, since no call is pending and none will come."""


class Reader:
    """Starts its thread at once; its connection ensures that there is one reader at a time.

    Raises RuntimeError or OSError if no thread, or no bell, can be had.
    """

    def __init__(self, attended: Attended) -> None:
        self._attended = attended
        self._bell, self._hammer = socket.socketpair()
        self._bell.setblocking(False)
        self._hammer.setblocking(False)
        #: Whether it has been rung since it last looked.
        self.is_rung = False
        #: Stands for this thread among the followers: a call that never begins.
        self.me = Call(math.inf, self._bell)
        try:
            start_thread(self._run, "rpccluster reader")
        except Exception:
            self.close()
            raise

    def ring(self) -> None:
        """Wake the reader, to look again."""
        with contextlib.suppress(OSError):  # full: it has not heard the last ones yet
            self._hammer.send(b"!", NOW)
        self.is_rung = True  # after the bell, which would ring on if it were emptied only before

    def close(self) -> None:
        """Close the bell."""
        self._bell.close()
        self._hammer.close()

    def _run(self) -> None:
        try:
            self._attend()
        except BaseException as error:  # or the calls that rely on this thread would stay pending
            log_error("The reader of a connection has failed; the connection ends", error)
            self._attended.close(f"its reader failed: {error!r}")
            self._attend()
        finally:
            self.close()

    def _attend(self) -> None:
        attended = self._attended
        while True:
            if self.is_rung:
                self.is_rung = False
                with contextlib.suppress(OSError):
                    self._bell.recv(4096)
            if attended.attend(self.me) or (not attended.has_ended and self._rest()):
                continue
            if attended.dismiss(self):
                return
            if not self._rest():  # for a thread that is about to ring
                attended.tell_the_rest()

    def _rest(self) -> bool:
        """Wait for the bell for a while. Returns False if it did not ring."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        return bool(poll.poll(_REST_SECONDS * 1000))


class Started:
    """The calls of one connection whose waiters do not know of their end yet."""

    def __init__(self) -> None:
        self._calls: set[Call] = set()
        self._untold: deque[Call] = deque()  # those of them that have ended

    def __bool__(self) -> bool:
        return bool(self._calls)

    @property
    def has_untold(self) -> bool:
        """Whether the reader has a waiter to tell."""
        return bool(self._untold)

    def add(self, call: Call) -> None:
        """Add a started call."""
        self._calls.add(call)

    def discard(self, call: Call) -> None:
        """Drop a call, whose waiter needs to know nothing any more."""
        self._calls.discard(call)

    def note_end(self, call: Call) -> None:
        """Note that a call has ended."""
        self._untold.append(call)

    def tell_all(self) -> None:
        """Tell the waiters of all ended calls; only the reader does."""
        while self._untold:
            self.tell(self._untold.popleft())

    def tell(self, call: Call) -> None:
        """Tell one waiter; its callbacks' errors are logged."""
        self._calls.discard(call)
        try:
            call.waiter.settle(call)
        except BaseException as error:
            log_error("A future could not be ended as its call was", error)

    def leftovers(self) -> list[Call]:
        """Return the ended calls whose waiters do not know it, when none is pending any more."""
        for call in self._calls:
            if not call.is_over:  # its reply was being taken in by a thread that was interrupted, or is not here
                call.error = Lost("the call's reply was lost; it may have run")
        return list(self._calls)
