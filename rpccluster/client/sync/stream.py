"""One wire that threads share: they send in turn, and one of the waiting threads receives for all of them.

The thread that receives is the leader. The others are followers: they sleep until their call has ended, or until the
lead is passed to them. This module owns the lead; `Outbox` owns unsent bytes, and `Calls` knows what bytes mean.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable
from time import monotonic

from rpccluster.client.core.exchange.call import Call, CallState
from rpccluster.client.core.exchange.calls import Calls
from rpccluster.client.core.exchange.dialect import DIALECT, Dialect
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.sync.outbox import Outbox
from rpccluster.client.sync.wire import Wire, receiver_of
from rpccluster.client.threads.followers import Followers, new_waker, sleep
from rpccluster.client.threads.native import this_hub
from rpccluster.client.threads.reader import Reader, Started
from rpccluster.errors import Lost, NotSent

__all__ = ["Stream"]

_IDLE_SECONDS = 0.002  # so often, at most, sending begins with a look whether the server is still there
_MOST_ANSWERS_BYTES = 65_536  # that a server may leave unread before it gets no more of them
_PUSH_SECONDS = 0.05  # so often a thread that only writes looks whether the lead has become free

_NESTED = "a signal handler or a finalizer called in the middle of the same connection's work"

_NEW = CallState.NEW
_PENDING = CallState.PENDING


class Stream:
    """A connected wire, and the threads that wait for it. It ends once and for good.

    Once not ``is_open`` it takes no more calls; once it ``has_ended`` no call of it is pending any more. In between,
    the leader still receives what the server had sent.

    The lock guards the sending side, and no thread holds it while it waits. Only the leader touches the receiving side,
    without the lock. Where the two meet, each side first writes and then reads: a call leaves the table of pending
    calls exactly once; a follower registers before it looks for a leader, and the leader resigns before it looks for
    followers.
    """

    def __init__(
        self, wire: Wire, max_message_size: int, dialect: Dialect = DIALECT, max_depth: int = BOUNDS.max_depth
    ) -> None:
        self.is_open = True
        self.has_ended = False
        self.hub = this_hub()  # of gevent, to which the wire belongs
        self._wire = wire
        self._receive_reply = receiver_of(wire, dialect, max_message_size)
        self._is_between = True  # nothing is held of a message
        self._lock = threading.RLock()  # which knows its holder: no thread may enter twice
        self._is_mine: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined]
        self._calls = Calls(max_message_size, dialect, self._let_begin, answer=self._answer, max_depth=max_depth)
        self._lone = Call()  # leads for a thread that waits alone and has not begun a call
        self._leader: Call | None = None
        self._leading = 0  # the thread that leads
        self._followers = Followers()
        self._out = Outbox(wire, self._stop_sending)
        self._send = self._out.send
        self._unsent = self._out.unsent
        self._is_asked = not dialect.is_bounded
        self._look_at = 0.0
        self._reader: Reader | None = None
        self._started = Started()
        self._reason = "the server closed the connection"  # unless we have

    @property
    def is_here(self) -> bool:
        """Whether this native thread may wait for it; under gevent only the one that connected."""
        return self.hub is None or self.hub is this_hub()

    @property
    def pending(self) -> int:
        """The number of calls that wait for their reply."""
        return self._calls.pending + (self._leader is self._lone)

    def close(self, reason: str) -> None:
        """End the connection, and every pending call with it."""
        if self._is_mine() or not self.is_here:
            return self._hang_up(reason)
        with self._lock:
            ended = self._end(reason)
        return self._wake(ended)

    def _hang_up(self, reason: str) -> None:
        """Close it without the lock: the thread that receives, now or later, finds the end of the stream."""
        self.is_open = False
        self._reason = reason
        self._wire.shutdown()
        reader = self._reader
        if reader is not None:
            reader.ring()

    def set_aside(self) -> None:
        """Take no more calls; end at once if none is pending."""
        with self._lock:
            self.is_open = False
            is_idle = self._leader is None and not self._calls.pending
            ended = self._end("the connection was idle") if is_idle else []
        self._wake(ended)

    def discard(self) -> None:
        """Close a connection that takes no more calls, unless a thread still receives what the server sends."""
        if self._is_mine():
            return
        with self._lock:
            is_done = self._leader is None and not self._calls.pending
            ended = self._end("the connection has ended") if is_done else []
        self._wake(ended)

    def abandon(self) -> list[Call]:
        """Drop the parent's connection in a forked child, without a trace on the wire. Returns its calls."""
        self._lock = threading.RLock()  # the old one may be held by a thread that is not in this process
        self._is_mine = self._lock._is_owned  # type: ignore[attr-defined]
        self.is_open = False
        self.has_ended = True
        self._wire.close()
        self._receive_reply = self._wire.receive_soon  # the descriptor may soon be another file's
        if self._reader is not None:
            self._reader.close()
        self._followers.wake_all()  # greenlets live on in the child
        self._calls.cut(self._out.kept, "the process was forked, and the reply goes to its parent")
        return self._started.leftovers()

    # -- waiting: as the leader, as a thread that pushes unsent bytes out, or as a follower -------------------------

    def _lead(self, call: Call) -> bool:
        """Receive once, for all threads. Returns False at the deadline of ``call``."""
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
        """Wake the threads whose calls have ended, and stop leading if ``call`` has."""
        if call.state is not _PENDING:
            self._leader = None
            if self._followers or self.has_ended:
                self._pass_the_lead_on()
        if len(ended) != 1 or ended[0] is not call:
            self._wake(ended, call)

    def _receive(self, call: Call) -> bytes | None:
        if self._unsent or call.state is _NEW:
            return self._push_and_receive(call)
        return self._wire.receive(call.deadline_at)

    def _push_and_receive(self, call: Call) -> bytes | None:
        events = select.POLLIN | select.POLLOUT if self._unsent else select.POLLIN
        self._wire.wait(events, call.deadline_at, call.waiter if call.state is _NEW else None)
        with self._lock:
            self._out.flush()
        return self._wire.receive_now()

    def _follow(self, call: Call) -> bool:
        """Wait while another thread leads, or become the leader. Returns False at the deadline of ``call``."""
        waker = new_waker()
        me = threading.get_ident()
        with self._lock:
            self._followers[call] = waker, me  # before it looks whether there is a leader
            if self._leader is None and not self.has_ended:
                self._leading, self._leader = me, call  # in this order: a thread that sees a leader sees its thread
            has_news = self._leader is call or self.has_ended or call.is_over or self._is_rung(call)
            sleeps = not (has_news or self._unsent or self._leading == me)
            if not sleeps:
                self._followers.pop(call, None)
        if sleeps:
            return sleep(waker, call.deadline_at)
        if not has_news and self._leading == me and call.state is _PENDING:
            raise Lost(f"{_NESTED}; the call may have run")  # it got the lead since the call was sent
        return has_news or self._push(call.deadline_at)

    def _push(self, deadline_at: float) -> bool:
        """Send the unsent bytes while another thread leads, which may wait for replies only."""
        now = monotonic()
        self._wire.wait(select.POLLOUT, min(deadline_at, now + _PUSH_SECONDS))
        with self._lock:
            self._out.flush()
        return now < deadline_at

    def _leave(self, call: Call) -> None:
        """Stop waiting."""
        with self._lock:
            if self._calls.forget(call):
                self._cancel(call)
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
                    leader, (waker, self._leading) = self._followers.popitem()
                    self._leader = leader
                    waker.release()

    def _wake(self, ended: list[Call], me: Call | None = None) -> None:
        """Wake the threads that wait for them, and have the reader tell waiters. Without the lock.

        The reader alone tells waiters, since nothing interrupts it: a thread that is interrupted while it waits for a
        future must not end that future itself.
        """
        followers = self._followers
        for call in ended:
            if call in followers:
                followers.wake(call)
            elif call.waiter is not None:
                self._started.note_end(call)
        reader = self._reader
        if self._started.has_untold and reader is not None and reader.me is not me:
            self._call_the_reader(reader)

    # -- what calls in the middle of something -----------------------------------------------------------------

    def _refuse_nested(self) -> None:
        """Raise `NotSent` if this thread holds the lock, or leads, and so would wait for itself.

        Both happen in a signal handler or a finalizer, which Python runs between any two steps.
        """
        if self._is_mine() or (self._leader is not None and self._leading == threading.get_ident()):
            raise NotSent(f"{_NESTED}; the call did not run")

    # -- sending, and the end; under the lock ------------------------------------------------------------------

    def _hand_over(self, data: bytes) -> None:
        """Send ``data``, now or as soon as the kernel takes it. Raises `NotSent` if the connection takes no more."""
        if not self.is_open:
            self._refuse_ended()
        self._out.send(data)

    def _ask(self, seconds: float) -> None:
        """Ask the server, along with its first call that has ``seconds``, whether it ends calls at their deadline."""
        question = self._calls.question(seconds)
        if question:
            self._is_asked = True
            with contextlib.suppress(NotSent):  # the next use of the connection finds out
                self._hand_over(question)

    def _cancel(self, call: Call) -> None:
        """Tell the server that nobody waits for ``call`` any more, unless it does not read."""
        data = self._calls.cancellation(call)
        if data and self.is_open and len(self._unsent) < _MOST_ANSWERS_BYTES:
            with contextlib.suppress(NotSent):
                self._out.send(data)

    def _refuse_ended(self) -> None:
        raise self._calls.not_sent("the connection has ended")

    def _stop_sending(self) -> None:
        self.is_open = False
        self._wire.shutdown()

    def _end(self, reason: str) -> list[Call]:
        """End every call. Returns them, to be woken without the lock."""
        self.is_open = False
        self.has_ended = True
        ended = self._calls.cut(self._out.handed_over, reason)
        if self._leader is None:
            self._wire.close()
        else:
            self._wire.shutdown()  # it finds the end, and closes it
        self._followers.wake_without_call()
        if self._reader is not None:
            self._reader.ring()
        return ended

    def _call_the_reader(self, reader: Reader) -> None:
        """Wake the reader, in whichever way it waits. Runs with the lock or without."""
        reader.ring()
        self._followers.wake(reader.me)

    def orphaned(self) -> list[Call]:
        """Close it, since its native thread has ended. Returns the calls whose waiters still have to be told."""
        self._hang_up("the thread that had connected has ended")
        return self._started.leftovers()

    def _is_rung(self, call: Call) -> bool:
        return self._reader is not None and call is self._reader.me and self._reader.is_rung

    # -- without the lock --------------------------------------------------------------------------------------

    def _take_in(self, data: bytes | None) -> list[Call]:
        """Return the calls that ``data`` ends; b"" ends the stream, None means data that `Calls.reply` held back."""
        ended = self._calls.receive(data or b"")
        self._is_between = self._calls.is_between
        fault = self._calls.fault
        if data == b"" or fault is not None:
            with self._lock:
                ended += self._end(self._reason if fault is None else f"{fault} from the server")
        elif self._calls.is_to_be_cut:
            with self._lock:
                self.is_open = False
                ended += self._calls.cut_unread("the server closes the connection")
                if not self._calls.pending:
                    ended += self._end("the server closes the connection")
        return ended

    def _let_begin(self) -> None:
        """Wait for a thread that has sent a call and is about to register it."""
        with self._lock:
            pass

    def _answer(self, data: bytes) -> None:
        """Send an answer to the server's own request, unless the server does not read."""
        with self._lock:
            if len(self._unsent) < _MOST_ANSWERS_BYTES:
                with contextlib.suppress(NotSent):
                    self._hand_over(data)

    def _make_sure_of_the_server(self) -> None:
        """Find out before sending whether the server has gone while no thread received."""
        if monotonic() <= self._look_at:
            return
        try:
            ended = self._look()
        except BaseException:  # from a signal handler: what was received may be lost
            self.close("a call was interrupted")
            raise
        self._wake(ended)

    def _look(self) -> list[Call]:
        """Take in what has come while no thread led."""
        me = Call()
        ended: list[Call] = []
        with self._lock:
            if self._leader is None and self.is_open:
                self._leading, self._leader = threading.get_ident(), me
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
