"""What a worker tells its master of the connections that it has accepted."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from rpccluster.ipc.messages import Keep, Message, Noted
from rpccluster.worker.connections import keeping
from rpccluster.worker.connections.keeping import Keeping


class Channel:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[Message] = []

    def say(self, message: Message, descriptors: object = ()) -> None:
        self.said.append(message)


@pytest.mark.parametrize(
    ("family", "counts", "why"),
    [
        (socket.AF_INET, True, "ledger_full"),
        (socket.AF_INET6, False, "ledger_full"),
        (socket.AF_UNIX, True, "ledger_full"),
        (socket.AF_UNIX, False, "kind_of_socket"),
    ],
)
def test_it_tells_why_the_ledger_does_not_have_a_connection(
    monkeypatch: pytest.MonkeyPatch, family: int, counts: bool, why: str
) -> None:
    monkeypatch.setattr(keeping, "counts_unix_sockets", lambda: counts)
    copies, channel = Channel(), Channel()
    made: Any = Keeping(gevent.get_hub().loop, copies, channel, lambda: 0)  # type: ignore[arg-type]
    made.add(_connection(3, family, is_noted=False))
    made.add(_connection(4, family, is_noted=True))
    made.tell()
    made._timer.stop()
    assert copies.said == [Noted(3, False, why), Keep(4, [[4, [], []]])]


def _connection(number: int, family: int, *, is_noted: bool) -> Any:
    outbox = SimpleNamespace(
        begin_note=lambda: None, is_noted=is_noted, peer="a Unix socket", identity=SimpleNamespace(names=())
    )
    return SimpleNamespace(number=number, family=family, outbox=outbox, is_closed=False, fileno=lambda: 0)
