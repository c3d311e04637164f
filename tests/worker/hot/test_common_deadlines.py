"""Calls with a deadline in their common form, which the compiled engine reads itself; all others take Python's way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

import rpccluster
import rpccluster.worker.hot.engine as engine_module
from rpccluster.worker.hot.control import bounded
from rpccluster.worker.hot.control.bounded import BoundedCalls
from rpccluster.worker.service.time_limit import FRESH, TimeLimit

from ..rig import Gated, Peer, Rig, settle, until

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Bounded(Gated):
    def left(self) -> bool:
        """Whether there is a deadline."""
        return rpccluster.current_call().deadline is not None


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the calls of new rigs have needed of Python."""
    noted: list[str] = []

    class Noted(BoundedCalls):
        def call(self, *params: Any) -> Any:
            noted.append("call")
            return super().call(*params)

    class NotedLimit(TimeLimit):
        def __init__(self, *arguments: Any) -> None:
            noted.append("limit")
            super().__init__(*arguments)

    monkeypatch.setattr(engine_module, "BoundedCalls", Noted)
    monkeypatch.setattr(bounded, "TimeLimit", NotedLimit)
    return noted


@pytest.fixture
def peer(noted: list[str]) -> Iterator[Peer]:
    rig = Rig(Bounded())
    yield rig.connect()
    rig.close()


@pytest.mark.parametrize("timeout", [20.0, 20, 0.5, 127, 9e8])
def test_a_common_call_with_a_deadline_costs_little(peer: Peer, noted: list[str], engine: str, timeout: float) -> None:
    """Compiled code reads it and runs it, and it gets a limit only when it blocks, or asks."""
    assert peer.call("rpc.call", "echo", [{"param": [1]}], {"timeout": timeout}) == {"param": [1]}
    with pytest.raises(RuntimeError, match="RuntimeError: x"):
        peer.call("rpc.call", "fail", ["x"], {"timeout": timeout})
    if engine == "compiled":
        assert noted == []
        assert peer.call("rpc.call", "sleep", [0.001], {"timeout": timeout}) == 0.001
        assert peer.call("rpc.call", "left", [], {"timeout": timeout}) is True
        assert noted == ["limit", "limit"]
    assert FRESH == []


@pytest.mark.parametrize(
    "params",
    [
        [b"echo", [1], {"timeout": 20}],
        ["echo", [1], {}],
        ["echo", [1], {"timeout": 2e9}],
        ["echo", [1], {"timeout": 20, "trace": TRACEPARENT}],
        ["echo", [1], {"timeout": 2000}],
        ["echo", [msgpack.Timestamp(1)], {"timeout": 20}],
        ["echo", [1]],
    ],
    ids=lambda params: repr(params[1:])[:30],
)
def test_other_forms_run_by_python(peer: Peer, noted: list[str], params: list[Any]) -> None:
    assert peer.call("rpc.call", *params) == params[1][0]
    assert noted[0] == "call"


def test_a_call_in_two_pieces_anywhere(peer: Peer) -> None:
    """Its deadline counts from when it was whole."""
    packed = msgpack.packb([0, 7, "rpc.call", ["echo", ["some"], {"timeout": 20.0}]])
    for at in range(1, len(packed)):
        peer.send(packed[:at])
        settle()
        assert peer.look() == []
        peer.send(packed[at:])
        assert until(peer.look) == [[1, 7, None, "some"]]
        peer.replies.clear()
