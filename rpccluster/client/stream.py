"""One wire shared by threads: bytes go out in turn, and one of those who wait receives for all of them.

The one who receives is the leader; the others are followers and sleep until their call has ended or the lead is
handed to them. Owns who leads and what is still unsent; what the bytes mean is `rpccluster.client.calls`.
"""

from __future__ import annotations

import contextlib
import select
import threading
from time import monotonic
from typing import Any

from rpccluster.client.calls import Call, Calls, CallState
from rpccluster.client.dialect import DIALECT, Dialect
from rpccluster.client.outgoing import BOUNDS
from rpccluster.client.reader import Reader
from rpccluster.client.wire import NOW, Wire
from rpccluster.errors import NotSent

__all__ = ["Stream"]

_IDLE_SECONDS = 0.002  # so often, at most, sending begins with a look whether the server is still there
_MOST_ANSWERS_BYTES = 65_536  # that a server may leave unread before it gets no more of them
_PUSH_SECONDS = 0.05  # so often one who only writes looks whether the lead has become free

_NEW = CallState.NEW
_PENDING = CallState.PENDING


class Stream:
    """A connected wire, and who waits for it. It ends once and for good.

    Once not ``is_open`` it takes no more calls; once it ``has_ended`` no call of it is pending any more. In
    between, the leader still receives what the server had sent.

    The lock guards the sending side, and is never held across a wait. The leader alone touches the receiving
    side, without the lock. Where the two meet, each first writes and then looks: a call leaves the table of the
    pending ones exactly once, and a follower puts itself down before it looks whether there is a leader, as the
    leader stops being it before it looks whether there are followers.
    """

    def __init__(
        self, wire: Wire, max_message_size: int, dialect: Dialect = DIALECT, max_depth: int = BOUNDS.max_depth
    ) -> None:
        self.is_open = True
        self.has_ended = False
        self._wire = wire
        self._send = wire.send
        self._recv = wire.recv
        self._lock = threading.Lock()
        self._calls = Calls(max_message_size, dialect, self._let_begin, answer=self._answer, max_depth=max_depth)
        self._lone = Call()  # leads in the name of who waits alone and has not put his call down
        self._leader: Call | None = None
        self._followers: dict[Call, Any] = {}  # with the locks on which they sleep
        self._unsent = bytearray()
        self._kept = 0  # bytes that have ever been unsent
        self._look_at = 0.0
        self._reader: Reader | None = None

    @property
    def pending(self) -> int:
        """How many calls wait for their reply."""
        return self._calls.pending + (self._leader is self._lone)

    def close(self, reason: str) -> None:
        """End the connection, and every pending call with it."""
        with self._lock:
            ended = self._end(reason)
        self._wake(ended)

    def discard(self) -> None:
        """Close what takes no more calls, unless someone still receives what the server had sent, or will send."""
        with self._lock:
            is_done = self._leader is None and not self._calls.pending
            ended = self._end("the connection has ended") if is_done else []
        self._wake(ended)

    def abandon(self) -> list[Call]:
        """In a forked child, let go of the parent's connection without a trace on the wire; return its calls."""
        self._lock = threading.Lock()  # the old one may be held by a thread that is not in this process
        self.is_open = False
        self.has_ended = True
        self._wire.close()
        if self._reader is not None:
            self._reader.close()
        for waker in self._followers.values():  # greenlets live on in the child
            waker.release()
        return self._calls.cut(self._kept, "the process was forked, and the reply goes to its parent")

    # -- waiting: as the leader, as one who pushes unsent bytes out, or as a follower -------------------------

    def _lead(self, call: Call) -> bool:
        """Receive once, for everybody; false once the deadline of ``call`` has come."""
        try:
            data = self._receive(call)
        except OSError as error:
            self.close(f"the connection failed: {error}")
            return True
        if data is None:
            return monotonic() < call.deadline_at
        self._share(call, self._take_in(data))
        return True

    def _share(self, call: Call, ended: list[Call]) -> None:
        """Wake those whose calls have ended, and stop leading if ``call`` has."""
        if call.state is not _PENDING or self._reader is not None:  # callbacks, which may call, run without the lead
            self._leader = None
            if self._followers or self.has_ended:
                self._pass_the_lead_on()
        if len(ended) != 1 or ended[0] is not call:
            self._wake(ended)

    def _receive(self, call: Call) -> bytes | None:
        if self._unsent or call.state is _NEW:
            return self._push_and_receive(call)
        return self._wire.receive(call.deadline_at)

    def _push_and_receive(self, call: Call) -> bytes | None:
        events = select.POLLIN | select.POLLOUT if self._unsent else select.POLLIN
        self._wire.wait(events, call.deadline_at, call.waiter if call.state is _NEW else None)
        with self._lock:
            self._flush()
        return self._wire.receive_now()

    def _follow(self, call: Call) -> bool:
        """Wait while another one leads, or become the leader; false once the deadline of ``call`` has come."""
        waker = threading.Lock()
        waker.acquire()
        with self._lock:
            self._followers[call] = waker  # before it looks whether there is a leader
            if self._leader is None and not self.has_ended:
                self._leader = call
            has_news = self._leader is call or self.has_ended or call.is_over
            sleeps = not (has_news or self._unsent)
            if not sleeps:
                self._followers.pop(call, None)
        if sleeps:
            return _sleep(waker, call.deadline_at)
        return has_news or self._push(call.deadline_at)

    def _push(self, deadline_at: float) -> bool:
        """Send what is unsent, while another one leads and may be waiting for replies alone."""
        now = monotonic()
        self._wire.wait(select.POLLOUT, min(deadline_at, now + _PUSH_SECONDS))
        with self._lock:
            self._flush()
        return now < deadline_at

    def _leave(self, call: Call) -> None:
        """Stop waiting."""
        with self._lock:
            self._calls.forget(call)
            self._followers.pop(call, None)
            if self._leader is call:
                self._leader = None
        self._pass_the_lead_on()

    def _pass_the_lead_on(self) -> None:
        with self._lock:
            if self._leader is None and self.has_ended:
                self._wire.close()
            elif self._leader is None:
                with contextlib.suppress(KeyError):  # the last one was woken meanwhile
                    self._leader, waker = self._followers.popitem()
                    waker.release()

    def _wake(self, ended: list[Call]) -> None:
        """Tell those who wait for them. Without the lock."""
        for call in ended:
            waker = self._followers.pop(call, None)
            if waker is not None:
                waker.release()
            elif call.waiter is not None:
                call.waiter.settle(call)

    # -- sending, and the end; under the lock ------------------------------------------------------------------

    def _hand_over(self, data: bytes) -> None:
        """Send what the kernel takes at once, and keep the rest. Raises `NotSent` if it takes nothing any more."""
        if not self.is_open:
            raise NotSent("the connection has ended; the call did not run")
        sent = 0
        if not self._unsent:
            try:
                sent = self._send(data, NOW)
            except BlockingIOError:
                pass
            except OSError as error:
                self._stop_sending()
                raise NotSent(f"the connection failed: {error}; the call did not run") from None
        if sent != len(data):
            self._unsent += memoryview(data)[sent:]
            self._kept += len(data) - sent

    @property
    def _handed_over(self) -> int:
        """How much of all that was ever kept has been handed over since."""
        return self._kept - len(self._unsent)

    def _start_of(self, data: bytes) -> int:
        """Where the ``data`` just handed over starts in all that was ever kept: before its end if nothing was."""
        return self._kept - len(data)

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._send(self._unsent, NOW)]
        except BlockingIOError:
            pass
        except OSError:
            self._stop_sending()

    def _stop_sending(self) -> None:
        self.is_open = False
        self._wire.shutdown()

    def _end(self, reason: str) -> list[Call]:
        """End every call; return them, to be woken without the lock."""
        self.is_open = False
        self.has_ended = True
        ended = self._calls.cut(self._handed_over, reason)
        if self._leader is None:
            self._wire.close()
        else:
            self._wire.shutdown()  # it finds the end, and closes it
        for call in list(self._followers):  # those without a call of their own
            if call.state is _NEW:
                self._followers.pop(call).release()
        if self._reader is not None:
            self._reader.ring()
        return ended

    def _call_the_reader(self) -> None:
        """Have the reader look again, whichever way it waits."""
        assert self._reader is not None
        waker = self._followers.pop(self._reader.me, None)
        if waker is not None:
            waker.release()
        self._reader.ring()

    # -- without the lock --------------------------------------------------------------------------------------

    def _take_in(self, data: bytes | None) -> list[Call]:
        """The calls that are over now that ``data`` came; b"" is the end, None what `Calls.reply` held back."""
        ended = self._calls.receive(data or b"")
        fault = self._calls.fault
        if data == b"" or fault is not None:
            with self._lock:
                ended += self._end("the server closed the connection" if fault is None else f"{fault} from the server")
        elif self._calls.due is not None and self.is_open:
            with self._lock:
                self.is_open = False
                ended += self._calls.cut_unread("the server closes the connection")
                if not self._calls.pending:
                    ended += self._end("the server closes the connection")
        return ended

    def _let_begin(self) -> None:
        """Wait for the thread that has sent a call and is about to begin it."""
        with self._lock:
            pass

    def _answer(self, data: bytes) -> None:
        """Send what nobody waits for: an answer to the server, unless that does not read."""
        with self._lock:
            if len(self._unsent) < _MOST_ANSWERS_BYTES:
                with contextlib.suppress(NotSent):
                    self._hand_over(data)

    def _make_sure_of_the_server(self) -> None:
        """Find out before sending, rather than after, that the server went away while nobody was looking."""
        if monotonic() <= self._look_at:
            return
        try:
            ended = self._look()
        except BaseException:  # from a signal handler: what was received may be lost
            self.close("a call was interrupted")
            raise
        self._wake(ended)

    def _look(self) -> list[Call]:
        """Take in what has come while nobody led."""
        me = Call()
        ended: list[Call] = []
        with self._lock:
            if self._leader is None and self.is_open:
                self._leader = me
        try:
            while self._leader is me and self.is_open:
                data = self._wire.receive_now()
                if data is None:
                    break
                ended += self._take_in(data)
        except OSError as error:
            self.close(f"the connection failed: {error}")
        self._look_at = monotonic() + _IDLE_SECONDS
        if self._leader is me:
            self._leave(me)
        return ended


def _sleep(waker: Any, deadline_at: float) -> bool:
    """Sleep until ``waker`` is released; false once the deadline has come."""
    left = deadline_at - monotonic()
    if left > threading.TIMEOUT_MAX:
        return bool(waker.acquire())
    return bool(waker.acquire(timeout=left)) if left > 0 else bool(waker.acquire(False))
