"""Long calls of many peers, in the Python engine: they come whole, and no flood of short ones comes as one long one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import msgpack
import pytest

from rpccluster.worker.hot.inbox import RECEIVE_BYTES, RECEIVE_LESS_BYTES

from ..rig import Peer, Rig

PEERS = 8


@pytest.fixture
def rig(engine: str) -> Iterator[Rig]:
    """One of the Python engine, with the defaults."""
    if engine != "python":
        pytest.skip("the compiled engine asks for long calls in its own way")
    made = Rig()
    yield made
    made.close()


@pytest.fixture
def pieces(rig: Rig) -> list[int]:
    """How many bytes each continuation of a call had."""
    found: list[int] = []
    decoder: Any = rig.engine._room.decoder  # type: ignore[attr-defined]
    decode_more = decoder.decode_more

    def noted(partial: Any, data: Any) -> Any:
        found.append(len(data))
        return decode_more(partial, data)

    decoder.decode_more = noted
    return found


def round_of(peers: list[Peer], *params: Any) -> None:
    """One call of each, all at once."""
    before = [len(peer.replies) for peer in peers]
    for peer in peers:
        peer.post("echo", *params)
    for peer, count in zip(peers, before):
        peer.wait(count + 1)


def test_long_calls_of_many_come_whole(rig: Rig, pieces: list[int]) -> None:
    """But for the first of each, since all but one wait for others' turns."""
    peers = [rig.connect() for _ in range(PEERS)]
    for _ in range(3):
        round_of(peers, b"x" * 2 * RECEIVE_LESS_BYTES)
    pieces.clear()
    for _ in range(10):
        round_of(peers, b"x" * 2 * RECEIVE_LESS_BYTES)
    assert len(pieces) < PEERS  # each round would have that many but one


def test_what_is_long_is_asked_for_once(rig: Rig) -> None:
    """Short calls behind it come as ever: few while others wait, though their pieces add up."""
    peers = [rig.connect() for _ in range(PEERS)]
    for _ in range(3):
        round_of(peers, b"x" * 2 * RECEIVE_LESS_BYTES)
    message = msgpack.packb([0, 1, "echo", [1]])
    before, most = len(rig.service.began), 0
    for peer in peers:
        peer.send(message * 5000)
    while len(rig.service.began) - before < PEERS * 5000:
        gevent.sleep(0)
        most = max(most, sum(peer.connection.outbox.pending for peer in peers))
        for peer in peers:
            peer.look()
    once = 3 * RECEIVE_LESS_BYTES + 100
    assert most < (RECEIVE_BYTES + PEERS * (RECEIVE_LESS_BYTES + once)) // len(message)
