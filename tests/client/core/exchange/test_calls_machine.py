"""The core against a model: random sends, replies in any order and pieces, timeouts, cuts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from rpccluster.client.core.exchange.call import Call, CallState
from rpccluster.client.core.exchange.calls import Calls
from rpccluster.errors import CallTimeout, Lost, NotSent, RemoteError

from ...mixed import FULL_SCALE
from ...servers import reply

MSGIDS = 8  # few, so that they go round


class Core(RuleBasedStateMachine):
    """The server answers a request with what it was asked, so that each result tells whose it is."""

    questions = Bundle("questions")  # what the server has been asked and has not answered

    @initialize()
    def connect(self) -> None:
        self.connection = getattr(self, "connection", 0) + 1
        self.calls = Calls(1 << 20, msgids=MSGIDS)
        self.now = 0.0
        self.stream = 0
        self.waiting: dict[Call, int] = {}  # the model: who waits, and for which answer
        self.watched: set[Call] = set()
        self.given_up: set[int] = set()  # msgids whose replies are still to come
        self.in_flight = b""
        self.replies: list[tuple[int, int]] = []  # the msgids in flight, with how many bytes end there
        self.asked = 0

    @precondition(lambda self: len(self.waiting) + len(self.given_up) < MSGIDS)
    @rule(target=questions, patience=st.floats(0, 10), is_watched=st.booleans())
    def ask(self, patience: float, is_watched: bool) -> tuple[int, int, int]:
        call = Call(self.now + patience)
        data = self.calls.request("echo", (self.asked,))
        taken = {other.msgid for other in self.waiting} | self.given_up
        assert self.calls.msgid not in taken, "a msgid was reused while its reply was to come"
        self.calls.begin(call, self.calls.msgid, self.stream)
        self.stream += len(data)
        if is_watched:
            self.calls.watch(call)
            self.watched.add(call)
        self.waiting[call] = self.asked
        self.asked += 1
        return self.connection, call.msgid, self.asked - 1

    @rule(question=consumes(questions), fails=st.booleans())
    def answer(self, question: tuple[int, int, int], fails: bool) -> None:
        """The server answers any of its questions."""
        connection, msgid, number = question
        if connection == self.connection:
            self._send(msgid, reply(msgid, error=f"Number: {number}") if fails else reply(msgid, number))

    @rule(msgid=st.integers(MSGIDS, 2**32 - 1))
    def invent(self, msgid: int) -> None:
        """The server answers what nobody has asked."""
        self._send(msgid, reply(msgid, "?"))

    def _send(self, msgid: int, data: bytes) -> None:
        self.in_flight += data
        self.replies.append((msgid, len(self.in_flight)))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def arrive(self, data: Any) -> None:
        """Some of what is on its way arrives."""
        size = data.draw(st.integers(1, len(self.in_flight)))
        piece, self.in_flight = self.in_flight[:size], self.in_flight[size:]
        arrived = {msgid for msgid, end in self.replies if end <= size}
        for call in self.calls.receive(piece):
            assert call.state is CallState.ANSWERED
            assert call.msgid in arrived
            number = self.waiting.pop(call)
            assert call.value == number or (isinstance(call.error, RemoteError) and call.error.message == str(number))
        assert self.calls.fault is None
        assert not arrived & {call.msgid for call in self.waiting}, "a reply that came did not end its call"
        self.given_up -= arrived
        self.replies = [(msgid, end - size) for msgid, end in self.replies if end > size]

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds: float) -> None:
        """Time passes: exactly those who are due are given up."""
        self.now += seconds
        due = {call for call in self.waiting if call in self.watched and call.deadline_at <= self.now}
        ended = self.calls.expire(self.now)
        assert set(ended) == due
        for call in ended:
            assert isinstance(call.error, CallTimeout)
            self._give_up(call)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        """Somebody gives up of his own accord."""
        calls = {call.msgid: call for call in self.waiting}
        call = calls[data.draw(st.sampled_from(sorted(calls)))]  # of numbers: calls are other objects in each run
        assert self.calls.forget(call)
        self._give_up(call)

    def _give_up(self, call: Call) -> None:
        del self.waiting[call]
        self.given_up.add(call.msgid)

    @rule(data=st.data())
    def cut(self, data: Any) -> None:
        """The connection ends when some of the stream was handed over; another one begins."""
        at = data.draw(st.integers(0, self.stream))
        ended = self.calls.cut(at, "cut")
        assert set(ended) == set(self.waiting)
        for call in ended:
            assert isinstance(call.error, Lost if call.starts_at < at else NotSent)
        assert self.calls.pending == 0
        self.connect()

    @invariant()
    def nobody_is_forgotten(self) -> None:
        if hasattr(self, "calls"):
            assert self.calls.pending == len(self.waiting)
            assert all(call.state is CallState.PENDING for call in self.waiting)


TestCore = pytest.mark.timeout(900)(Core.TestCase)
TestCore.settings = settings(max_examples=5000 if FULL_SCALE else 150, stateful_step_count=40, deadline=None)
