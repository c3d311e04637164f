"""The core of the client: msgids, matching, deadlines, cuts and faults, without a socket."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest

from rpccluster.client.core.exchange.call import Call, CallState
from rpccluster.client.core.exchange.calls import Calls
from rpccluster.client.core.exchange.outgoing import body_packer
from rpccluster.errors import CallTimeout, Lost, NoMethodError, NotSent, ProtocolError, RemoteError

from ...servers import reply

LIMIT = 1000


@pytest.fixture
def calls() -> Calls:
    return Calls(LIMIT)


def begin(calls: Calls, deadline_at: float = math.inf, starts_at: int = 0) -> Call:
    call = Call(deadline_at)
    calls.request("method", (1,))
    calls.begin(call, calls.msgid, starts_at)
    return call


def decoded(data: bytes) -> Any:
    return msgpack.unpackb(data)


class TestSending:
    def test_request(self, calls: Calls) -> None:
        """A request is what the specification says, with the next msgid."""
        assert decoded(calls.request("sum", (1, "x", b"y"))) == [0, 0, "sum", [1, "x", b"y"]]
        assert decoded(calls.request("sum", ())) == [0, 1, "sum", []]

    def test_packed_request(self, calls: Calls) -> None:
        """A batch's requests are packed before they have a msgid, to the same message."""
        begin(calls)
        assert decoded(calls.packed_request(body_packer()("sum", (1, [2])))) == [0, 1, "sum", [1, [2]]]
        assert calls.msgid == 1

    def test_notification(self, calls: Calls) -> None:
        """A notification has no msgid."""
        assert decoded(calls.notify("log", ("x",))) == [2, "log", ["x"]]

    @pytest.mark.parametrize("params", [(object(),), (2**64,), ({1: {2, 3}},)])
    def test_unpackable(self, calls: Calls, params: Any) -> None:
        """Params that cannot be packed raise, leave nothing behind, and the next request is whole."""
        for pack in (calls.request, calls.notify, body_packer()):
            with pytest.raises((TypeError, ValueError, OverflowError)):
                pack("m", params)
        assert calls.pending == 0
        assert decoded(calls.request("m", (1,)))[2:] == ["m", [1]]

    @pytest.mark.parametrize("method", [b"sum", None, 1])
    def test_method_must_be_a_string(self, calls: Calls, method: Any) -> None:
        """A method that is no string would cost the connection: it is refused before anything is sent."""
        for pack in (calls.request, calls.notify, body_packer()):
            with pytest.raises(TypeError, match="expected str"):
                pack(method, ())


class TestMatching:
    def test_any_order(self, calls: Calls) -> None:
        """Replies find their calls in whatever order and pieces they come."""
        first, second, third = begin(calls), begin(calls), begin(calls)
        data = reply(2, "third") + reply(0, "first") + reply(1, "second")
        ended = [call for index in range(len(data)) for call in calls.receive(data[index : index + 1])]
        assert ended == [third, first, second]
        assert [call.result() for call in (first, second, third)] == ["first", "second", "third"]
        assert calls.pending == 0

    def test_error(self, calls: Calls) -> None:
        """The reply's error is the call's, and nobody else's."""
        first, second = begin(calls), begin(calls)
        calls.receive(reply(0, error="'x' method not found") + reply(1, error="ValueError: no"))
        with pytest.raises(NoMethodError):
            first.result()
        with pytest.raises(RemoteError) as info:
            second.result()
        assert (info.value.type, info.value.message) == ("ValueError", "no")

    @pytest.mark.parametrize("msgid", [7, 0xFFFFFFFF, -1, 2**63])
    def test_unknown_msgid(self, calls: Calls, msgid: int) -> None:
        """A reply to a request that was never made answers nobody."""
        call = begin(calls)
        assert calls.receive(reply(msgid, "?")) == []
        assert calls.dropped == 1
        assert calls.receive(reply(0, "!")) == [call]

    def test_doubled(self, calls: Calls) -> None:
        """The second reply to a call answers nobody."""
        call, other = begin(calls), begin(calls)
        assert calls.receive(reply(0, 1) + reply(0, 2)) == [call]
        assert call.result() == 1
        assert other.state is CallState.PENDING

    def test_requests_and_notifications_are_passed_over(self, calls: Calls) -> None:
        """A server may send calls of its own; they are not mistaken for replies, nor do they end the connection."""
        call = begin(calls)
        data = msgpack.packb([0, 0, "m", []]) + msgpack.packb([2, "m", []]) + reply(0, 5)
        assert calls.receive(data) == [call]
        assert call.result() == 5
        assert calls.fault is None

    def test_begins_after_its_reply_came(self) -> None:
        """A reply that overtakes its call, which another thread is about to begin, waits for it."""
        call = Call()
        calls = Calls(LIMIT, let_begin=lambda: calls.begin(call, 0, 0) if call.state is CallState.NEW else None)
        calls.request("m", ())
        assert calls.receive(reply(0, "!")) == [call]

    def test_result_before_the_end(self, calls: Calls) -> None:
        """A call that has not ended has no result."""
        with pytest.raises(RuntimeError):
            begin(calls).result()


class TestAlone:
    def test_whole_reply(self, calls: Calls) -> None:
        """Who waits alone gets his reply without a call."""
        calls.request("m", ())
        message = calls.reply(0, reply(0, "x"))
        assert message is not None
        assert message[3] == "x"

    @pytest.mark.parametrize(
        "others", [reply(9, "?"), msgpack.packb([0, 0, "m", []]), msgpack.packb([2, "m", []]), reply(0, "x")[:3]]
    )
    def test_anything_else(self, calls: Calls, others: bytes) -> None:
        """When something else comes first, nothing of it is lost to the call that begins then."""
        calls.request("m", ())
        assert calls.reply(0, others) is None
        call = Call()
        calls.begin(call, 0, 0)
        rest = reply(0, "x") if len(others) != 3 else reply(0, "x")[3:]
        assert calls.receive(b"") + calls.receive(rest) == [call]
        assert call.result() == "x"

    def test_more_than_the_reply(self, calls: Calls) -> None:
        """A reply with something behind it is one for the call that begins then."""
        calls.request("m", ())
        assert calls.reply(0, reply(0, "x") + reply(5, "y")) is None
        call = Call()
        calls.begin(call, 0, 0)
        assert calls.receive(b"") == [call]

    def test_rubbish(self, calls: Calls) -> None:
        """Rubbish is a fault here, too."""
        calls.request("m", ())
        assert calls.reply(0, b"\xc1") is None
        assert isinstance(calls.fault, ProtocolError)


class TestMsgids:
    def test_not_reused_while_pending(self) -> None:
        """A pending call keeps its msgid, however often the others go round."""
        calls = Calls(LIMIT, msgids=4)
        first = begin(calls)
        for _ in range(10):
            call = begin(calls)
            assert call.msgid != first.msgid
            assert calls.receive(reply(call.msgid)) == [call]

    def test_not_reused_before_the_late_reply(self) -> None:
        """The msgid of a call that was given up is free only when its reply has come."""
        calls = Calls(LIMIT, msgids=3)
        first = begin(calls)
        calls.forget(first)
        for _ in range(5):
            call = begin(calls)
            assert call.msgid != 0
            calls.receive(reply(call.msgid))
        assert calls.receive(reply(0, "late")) == []
        assert [begin(calls).msgid for _ in range(3)].count(0) == 1

    def test_all_taken(self) -> None:
        """Without a free msgid a request raises, and the next succeeds once a reply has freed one."""
        calls = Calls(LIMIT, msgids=2)
        begin(calls)
        second = begin(calls)
        for _ in range(2):
            with pytest.raises(OverflowError):
                calls.request("m", ())
        calls.receive(reply(1))
        assert second.is_over
        assert begin(calls).msgid == 1


class TestDeadlines:
    def test_expire(self, calls: Calls) -> None:
        """Calls end at their deadlines, the earliest first, and their late replies answer nobody."""
        late, early, never = begin(calls, 9.0), begin(calls, 5.0), begin(calls)
        for call in (late, early, never):
            calls.watch(call)
        assert calls.next_deadline_at() == 5.0
        assert calls.expire(4.9) == []
        assert calls.expire(5.0) == [early]
        assert calls.next_deadline_at() == 9.0
        assert calls.expire(100.0) == [late]
        assert calls.next_deadline_at() == math.inf
        with pytest.raises(CallTimeout):
            early.result()
        assert calls.receive(reply(early.msgid, "late")) == []

    def test_answered_in_time(self, calls: Calls) -> None:
        """A call that was answered does not end a second time."""
        call = begin(calls, 5.0)
        calls.watch(call)
        calls.receive(reply(0, "x"))
        assert calls.next_deadline_at() is None
        assert calls.expire(9.0) == []
        assert call.result() == "x"

    def test_the_deadline_of_one_who_had_the_msgid_before(self) -> None:
        """When a call was answered and another has its msgid, the first one's deadline is not the other's."""
        calls = Calls(1 << 20, msgids=1)
        calls.watch(begin(calls, 5.0))
        calls.receive(reply(0, "first"))
        other = begin(calls, 99.0)
        assert (other.msgid, calls.expire(9.0)) == (0, [])
        assert calls.receive(reply(0, "second")) == [other]
        assert other.result() == "second"

    def test_forgetting_one_whose_msgid_another_has(self, calls: Calls) -> None:
        """While its own reply is being taken in: the other stays pending, and is answered."""
        one, other = Call(), Call()
        for call in (one, other):
            calls.begin(call, 7, 0)
        assert not calls.forget(one)
        assert calls.receive(reply(7, "x")) == [other]

    def test_many_ended_calls_are_forgotten(self, calls: Calls) -> None:
        """A million short calls with a long timeout do not pile up."""
        for _ in range(2000):
            call = begin(calls, 1000.0)
            calls.watch(call)
            calls.receive(reply(call.msgid))
        assert len(calls._deadlines) < 200


class TestCut:
    def test_what_may_have_run(self, calls: Calls) -> None:
        """What was handed over, if only in part, is lost; what was not certainly did not run."""
        whole, part, none = (begin(calls, starts_at=at) for at in (0, 10, 20))
        assert set(calls.cut(11, "the cable broke")) == {whole, part, none}
        for call in (whole, part):
            with pytest.raises(Lost, match="cable broke; the call may have run"):
                call.result()
        with pytest.raises(NotSent, match="cable broke; the call did not run"):
            none.result()
        assert calls.pending == 0

    def test_forgotten_calls_do_not_end_again(self, calls: Calls) -> None:
        """A call that was given up is not ended by the cut."""
        call = begin(calls)
        assert calls.forget(call)
        assert calls.cut(1, "x") == []
        assert not calls.forget(call)

    def test_withdraw(self, calls: Calls) -> None:
        """A call that was withdrawn is as new."""
        call = begin(calls)
        calls.withdraw(call)
        assert call.state is CallState.NEW
        assert calls.cut(1, "x") == []


class TestFaults:
    @pytest.mark.parametrize(
        "rubbish",
        [
            b"\xc1",
            b"HTTP/1.1 400 Bad Request\r\n",
            msgpack.packb("text"),
            msgpack.packb([]),
            msgpack.packb([1, 0, None]),
            msgpack.packb([1, "x", None, 1]),
            msgpack.packb([3, 0, None, 1]),
            msgpack.packb({1: 0, 2: None, 3: 1, 4: 4}),
            b"\x91" * 3000,
        ],
    )
    def test_rubbish(self, calls: Calls, rubbish: bytes) -> None:
        """Bytes that are no MessagePack-RPC are a fault, and what came before them counts."""
        first, second = begin(calls), begin(calls)
        assert calls.receive(reply(0, "x") + rubbish) == [first]
        assert isinstance(calls.fault, ProtocolError)
        assert calls.cut(1, "fault") == [second]
        with pytest.raises(ProtocolError):
            second.result()

    @pytest.mark.parametrize("head", [b"\xc6\x40\x00\x00\x00", b"\xdb\x40\x00\x00\x00", b"\xdd\x40\x00\x00\x00"])
    def test_announced_gigabyte(self, calls: Calls, head: bytes) -> None:
        """Of a reply that announces a gigabyte no more than max_message_size is taken in."""
        begin(calls)
        calls.receive(b"\x94\x01\x00\xc0" + head)
        for _ in range(LIMIT // 50 + 1):
            if calls.fault is None:
                calls.receive(b"\x00" * 50)
        assert isinstance(calls.fault, ProtocolError)

    def test_endless_reply(self, calls: Calls) -> None:
        """A reply of ever more small pieces ends its call when it passes max_message_size, and then the stream."""
        call, other = begin(calls), begin(calls)
        ended = calls.receive(b"\x94\x01\x00\xc0" + b"\xdd\x00\x00\x03\xd0" * 1)
        for _ in range(1000):
            if calls.fault is None:
                ended += calls.receive(b"\xdd\x00\x00\x03\xd0" + b"\xa8zzzzzzzz" * 10)
        assert ended == [call]
        assert "more than 1000 bytes (max_message_size)" in str(call.error)
        assert "more than 1000 bytes (max_message_size)" in str(calls.fault)
        assert other.state is CallState.PENDING
