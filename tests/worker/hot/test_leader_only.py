"""Methods that run only where the cluster leads: they begin under a lease, and are answered under the same one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

import rpccluster
from rpccluster.leading.page import LeadPage, lead_page, use_lead_page
from rpccluster.leading.store import NOBODY, Standing, boot_ns
from rpccluster.worker.hot.led import lost_msgids, note_under_another
from rpccluster.worker.service.leader_only import Leading

from ..rig import Gated, Peer, Rig, settle, until

HOUR = 3600 * 10**9
LOST = "LeadLost: the lead ended while the call ran, which may have done its work"


class Led(Gated):
    """Some methods of it may run only at a leader."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[rpccluster.Later] = []

    @rpccluster.rpc(leader_only=True)
    def lead(self, value: Any) -> Any:
        self.began.append(value)
        return value

    @rpccluster.rpc(leader_only=True)
    def lead_wait(self, name: Any) -> Any:
        return self.wait(name)

    @rpccluster.rpc(leader_only=True)
    def lead_fail(self, name: Any) -> Any:
        self.wait(name)
        raise ValueError(name)

    @rpccluster.rpc(leader_only=True, later=True)
    def lead_later(self) -> rpccluster.Later:
        self.later.append(rpccluster.Later())
        return self.later[-1]

    @rpccluster.rpc(leader_only=True, thread=True)
    def lead_thread(self, value: Any) -> Any:
        return value

    @rpccluster.rpc(leader_only=True)
    async def lead_on_loop(self, value: Any) -> Any:
        return value

    @rpccluster.rpc(leader_only=True)
    def check(self) -> int:
        rpccluster.leadership.check()
        return rpccluster.leadership.token

    def end_lead(self, value: Any) -> None:
        lead_page().end()

    def take_lead(self, token: int) -> None:
        take_lead(lead_page(), token)

    def look_at_lead(self) -> list[Any]:
        return [rpccluster.leadership.is_leader, rpccluster.leadership.token]


@pytest.fixture
def page() -> Iterator[LeadPage]:
    before = lead_page()
    use_lead_page(LeadPage())
    yield lead_page()
    use_lead_page(before)


@pytest.fixture(params=[None, 20.0], ids=["plain", "bounded"])
def rig(page: LeadPage, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(Peer, "timeout", request.param)
    made = Rig(Led())
    yield made
    made.service.open(*made.service.gates)
    settle()
    made.close()


def take_lead(page: LeadPage, token: int = 1) -> None:
    page.show(Standing(token, "unix:///me", boot_ns() + HOUR), 10)


def await_begin(rig: Rig, name: str) -> None:
    until(lambda: name in rig.service.began, f"{name} begins")


METHODS = ["lead", "lead_thread", "lead_on_loop"]


@pytest.mark.parametrize("method", METHODS)
def test_elsewhere_it_is_refused_with_the_address(rig: Rig, page: LeadPage, method: str) -> None:
    """``none`` while nobody leads; the method does not run, and no line is logged."""
    peer = rig.connect()
    with pytest.raises(RuntimeError, match=r"^NotLeader: none$"):
        peer.call(method, 1)
    page.show(Standing(4, "tcp://other:1"), 10)
    with pytest.raises(RuntimeError, match=r"^NotLeader: tcp://other:1$"):
        peer.call(method, 1)
    assert rig.service.began == []
    assert peer.call("echo", 2) == 2


@pytest.mark.parametrize("method", METHODS)
def test_at_the_leader_it_runs(rig: Rig, page: LeadPage, method: str) -> None:
    """As any other method."""
    take_lead(page)
    assert rig.connect().call(method, 1) == 1


def test_the_method_sees_the_lead(rig: Rig, page: LeadPage) -> None:
    """Also one that may run elsewhere."""
    peer = rig.connect()
    assert peer.call("look_at_lead") == [False, 0]
    take_lead(page, 7)
    assert peer.call("look_at_lead") == [True, 7]
    assert peer.call("check") == 7


def test_a_lease_that_ends_while_it_runs_takes_its_reply(rig: Rig, page: LeadPage) -> None:
    """Its result is another one's by now; so is its error. Replies of other methods leave."""
    take_lead(page)
    peer = rig.connect()
    peer.post("lead_wait", "a")
    peer.post("lead_fail", "b")
    peer.post("wait", "c")
    await_begin(rig, "c")
    page.show(Standing(2, "unix:///other"), 10)
    rig.service.open("a", "b", "c")
    assert sorted(peer.wait(3)) == [[1, LOST, None], [2, LOST, None], [3, None, "c"]]


def test_a_lead_that_was_lost_and_taken_again_is_another(rig: Rig, page: LeadPage) -> None:
    """The token tells them apart."""
    take_lead(page)
    peer = rig.connect()
    peer.post("lead_wait", "a")
    await_begin(rig, "a")
    page.show(NOBODY, 10)
    take_lead(page, 3)
    rig.service.open("a")
    assert peer.wait(1) == [[1, LOST, None]]


def test_a_renewed_lease_lets_it_end(rig: Rig, page: LeadPage) -> None:
    """However long it runs."""
    take_lead(page)
    peer = rig.connect()
    peer.post("lead_wait", "a")
    await_begin(rig, "a")
    take_lead(page)
    rig.service.open("a")
    assert peer.wait(1) == [[1, None, "a"]]


def test_while_the_lead_is_given_up_calls_end_and_none_begins(rig: Rig, page: LeadPage) -> None:
    """So that a hand-over fails no call."""
    take_lead(page)
    peer = rig.connect()
    peer.post("lead_wait", "a")
    await_begin(rig, "a")
    page.hold()
    peer.post("lead", 5)
    rig.service.open("a")
    assert sorted(peer.wait(2)) == [[1, None, "a"], [2, "NotLeader: unix:///me", None]]


def test_replies_that_are_gathered_are_looked_at_when_they_leave(rig: Rig, page: LeadPage) -> None:
    """A process may be stopped after the method has returned: of what is sent afterwards only those replies are
    replaced that a leader alone may send."""
    take_lead(page)
    peer = rig.connect()
    batch = b"".join(
        peer_request(number, method, number)
        for number, method in enumerate(["lead", "echo", "lead", "end_lead", "echo"], 1)
    )
    peer.send(batch)
    replies = peer.wait(5)
    assert replies[0] == [1, LOST, None] and replies[2] == [3, LOST, None]
    assert replies[1] == [2, None, 2] and replies[4] == [5, None, 5]


def test_a_reply_that_leaves_since_the_peer_has_read_is_looked_at_too(rig: Rig, page: LeadPage, engine: str) -> None:
    """What has gathered leaves with what waited for the peer, before its turn comes."""
    if engine == "python":
        pytest.skip("what waits for the peer leaves alone here")
    take_lead(page)
    peer = rig.connect(buffer_bytes=10_000)
    peer.post("large", 60_000)
    until(lambda: rig.service.began)
    settle()
    outbox = peer.connection.outbox
    assert outbox.unsent
    outbox.expect([7])
    outbox.note_led(7, 1)
    outbox.put(msgpack.packb([1, 7, None, "led"]))
    peer.look()
    page.show(Standing(2, "unix:///other"), 10)
    assert peer.wait(2)[1] == [7, LOST, None]


def test_calls_of_two_leads_in_one_turn_are_told_apart(rig: Rig, page: LeadPage) -> None:
    """Those of the older one are lost, those of the newer one are answered, and so is what needs no lead."""
    take_lead(page)
    peer = rig.connect()
    calls = [("lead", 1), ("echo", 2), ("take_lead", 5), ("lead", 4), ("lead", 5)]
    peer.send(b"".join(peer_request(number, *call) for number, call in enumerate(calls, 1)))
    assert sorted(peer.wait(5)) == [[1, LOST, None], [2, None, 2], [3, None, None], [4, None, 4], [5, None, 5]]


class Notes:
    """What an outbox notes."""

    def __init__(self) -> None:
        self.led: list[Any] | None = [[0, 1, "lead", []], 2, [2, "lead", []]]
        self.led_token = 3
        self.led_lost: set[int] | None = None


@pytest.mark.parametrize(("present", "lost"), [(3, {9}), (4, {1, 2}), (5, {1, 2, 9})])
def test_a_call_of_another_lead_than_those_before(page: LeadPage, present: int, lost: set[int]) -> None:
    """Of the calls of two leads in one turn those are lost whose lead is not the present one; notifications have no
    reply to lose."""
    notes, leading = Notes(), Leading(page)
    take_lead(page, present)
    note_under_another(notes, leading, 9, 4)
    assert lost_msgids(notes, leading) == lost
    assert notes.led is None and notes.led_lost is None


def peer_request(msgid: int, method: str, value: Any) -> bytes:
    packed: bytes = msgpack.packb([0, msgid, method, [value]])
    return packed


def test_a_later_answer_needs_the_lead_of_the_call(rig: Rig, page: LeadPage) -> None:
    """It is compared when the answer comes."""
    take_lead(page)
    peer = rig.connect()
    peer.post("lead_later")
    peer.post("lead_later")
    until(lambda: len(rig.service.later) == 2, "both wait")
    rig.service.later[0].reply(1)
    assert peer.wait(1) == [[1, None, 1]]
    page.end()
    rig.service.later[1].reply(2)
    assert peer.wait(2)[1] == [2, LOST, None]


def test_a_notification_is_dropped_elsewhere(rig: Rig, page: LeadPage) -> None:
    """Nobody is told; at the leader it runs."""
    peer = rig.connect()
    peer.notify("lead", "x")
    assert peer.call("echo", 1) == 1
    take_lead(page)
    peer.notify("lead", "y")
    assert peer.call("echo", 2) == 2
    assert rig.service.began == [1, "y", 2]


def test_a_large_reply_is_looked_at_too(rig: Rig, page: LeadPage) -> None:
    """It is sent at once."""
    take_lead(page)
    peer = rig.connect()
    assert peer.call("lead", b"x" * (1 << 20)) == b"x" * (1 << 20)


def test_a_name_in_bytes_and_a_misfit_are_as_ever(rig: Rig, page: LeadPage) -> None:
    """Such calls take another way through the engine."""
    take_lead(page)
    peer = rig.connect()
    peer.send(msgpack.packb([0, 1, b"lead", [1]]))
    peer.send(msgpack.packb([0, 2, "lead", []]))
    replies = peer.wait(2)
    assert replies[0] == [1, None, 1]
    assert replies[1][1].startswith("ArgumentError: ")
