"""Calls that are held back because their kind is full: others go on, and each begins in its turn."""

from __future__ import annotations

import random
from typing import Any, Callable

import pytest

from rpccluster.ipc.scoreboard import Cell

from ..rig import Peer, Rig, settle, until
from .beside import Beside


@pytest.fixture
def make_rig(make_rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """Workers with one thread and one greenlet."""
    return lambda **options: make_rig(Beside(), **{"threads": 1, "thread_queue": 1, "max_greenlets": 1, **options})


def results(peer: Peer, count: int) -> list[Any]:
    """The first ``count`` results, in the order in which they came."""
    replies = until(lambda: peer.look() if len(peer.look()) >= count else None, f"{count} replies")
    assert all(error is None for _, _, error, _ in replies), replies
    return [result for *_, result in replies]


def quiet(rig: Rig) -> None:
    until(lambda: rig.engine.is_quiet)
    settle()
    assert (rig.engine.active_calls, rig.cells[Cell.ACTIVE_CALLS]) == (0, 0)


def test_while_all_greenlets_are_taken_other_kinds_go_on(make_rig: Any) -> None:
    """Also those of the same connection, and notifications; plain calls begin when a greenlet is free, in order."""
    rig = make_rig()
    first, second = rig.connect(), rig.connect()
    first.post("wait", "a")
    settle()
    for number in range(4):
        first.post("echo", number)
        first.post("t_echo", f"t{number}")
        first.notify("echo", f"n{number}")
        first.post("a_echo", f"a{number}")
    second.post("echo", "second")
    assert second.call("t_echo", "in a thread") == "in a thread"
    assert second.call("a_echo", "on the loop") == "on the loop"
    found = results(first, 8)
    assert [each for each in found if each[0] == "a"] == [f"a{number}" for number in range(4)]
    assert [each for each in found if each[0] == "t"] == [f"t{number}" for number in range(4)]
    assert rig.service.began == ["a"]
    assert rig.limit_counts()["max_greenlets"] >= 9  # coroutines count, too
    rig.service.open("a")
    assert results(first, 13)[8:] == ["a", 0, 1, 2, 3]
    assert results(second, 3)[2:] == ["second"]
    began = [each for each in rig.service.began if each != "second"]
    assert began == ["a", *(each for number in range(4) for each in (number, f"n{number}"))]
    quiet(rig)


def test_errors_are_answered_meanwhile(make_rig: Any) -> None:
    """Nothing waits for a greenlet that needs none."""
    rig = make_rig()
    peer = rig.connect()
    peer.post("wait", "a")
    settle()
    for method, params, text in [
        ("nope", (), "'nope' method not found"),
        ("t_echo", (1, 2, 3), "ArgumentError: "),
        ("a_echo", (1, 2, 3), "ArgumentError: "),
    ]:
        with pytest.raises(RuntimeError, match=text):
            peer.call(method, *params)
    rig.service.open("a")
    until(lambda: len(peer.look()) == 4)
    quiet(rig)


def test_a_connection_with_many_of_them_is_not_read_for_a_while(make_rig: Any) -> None:
    """So that they take little memory; all are answered in the end."""
    rig = make_rig()
    peer = rig.connect()
    peer.post("wait", "a")
    settle()
    for number in range(15):
        peer.post("echo", number)
    settle()
    assert not peer.connection.is_paused
    for number in range(15, 40):
        peer.post("echo", number)
    settle()
    assert peer.connection.is_paused
    peer.post("t_echo", "not read")
    settle()
    assert not peer.look()
    rig.service.open("a")
    found = results(peer, 42)
    assert [each for each in found if each != "not read"] == ["a", *range(40)]
    assert not peer.connection.is_paused
    quiet(rig)


def test_a_large_one_pauses_its_connection_at_once(make_rig: Any) -> None:
    """It takes much memory by itself."""
    rig = make_rig()
    peer = rig.connect()
    peer.post("wait", "a")
    settle()
    peer.post("echo", b"x" * 100_000)
    until(lambda: peer.connection.is_paused)
    rig.service.open("a")
    assert len(results(peer, 2)[1]) == 100_000
    assert not peer.connection.is_paused
    quiet(rig)


@pytest.mark.parametrize("seed", range(6))
def test_each_is_answered_once_and_kinds_keep_their_order(make_rig: Any, seed: int) -> None:
    """Whatever comes, whatever is full, and whatever blocks."""
    chance = random.Random(seed)
    rig = make_rig(max_greenlets=chance.randint(1, 3), threads=chance.randint(1, 2), thread_queue=chance.randint(0, 2))
    peers = [rig.connect() for _ in range(3)]
    posted: dict[Peer, list[tuple[str, int]]] = {peer: [] for peer in peers}
    for number in range(150):
        peer = chance.choice(peers)
        method = chance.choice(["echo", "sleep", "t_echo", "a_echo", "a_sleep", "t_order"])
        value = 0.001 if method.endswith("sleep") else number
        posted[peer].append((method, peer.post(method, value)))
        if chance.random() < 0.2:
            settle()
    for peer in peers:
        results(peer, len(posted[peer]))
        assert sorted(reply[1] for reply in peer.look()) == [msgid for _, msgid in posted[peer]]
        answered = [reply[1] for reply in peer.look()]
        echoes = {msgid for method, msgid in posted[peer] if method == "echo"}
        assert [msgid for msgid in answered if msgid in echoes] == sorted(echoes)
    quiet(rig)
    assert not rig.engine.withdraw([peer.connection.outbox for peer in peers])
