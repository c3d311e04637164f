"""What a worker tells its master of the connections that it has accepted."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from rpccluster.ipc.messages import Collect, Drop, Keep, Message, Noted
from rpccluster.worker.connections import keeping
from rpccluster.worker.connections.keeping import COLLECT_SECONDS, MOST_ENDED, MOST_UNREAD, Keeping


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


def test_the_master_is_asked_now_and_then() -> None:
    """A tenth of a second after the first news each time: not at once after the first time."""
    channel = Channel()
    made: Any = Keeping(gevent.get_hub().loop, Channel(), channel, lambda: 0)  # type: ignore[arg-type]
    waited = []
    for times in range(1, 7):
        made.note_ended(times)
        began = time.monotonic()
        with gevent.Timeout(30):
            while len(channel.said) < times:
                gevent.sleep(0.001)
        waited.append(time.monotonic() - began)
    assert channel.said == [Collect()] * 6
    assert max(waited[1:]) > COLLECT_SECONDS / 2  # one is enough: a busy machine's loop may begin late


def test_the_master_is_asked_earlier_if_there_is_much() -> None:
    """Many copies that only the kernel holds, or many connections that have ended."""
    copies, channel = Channel(), Channel()
    made: Any = Keeping(gevent.get_hub().loop, copies, channel, lambda: 0)  # type: ignore[arg-type]
    for number in range(MOST_ENDED):
        made.note_ended(number)
    assert copies.said == [Drop(list(range(MOST_ENDED)))]
    for number in range(MOST_UNREAD):
        assert channel.said == [Collect()]
        made.add(_connection(number, socket.AF_INET, is_noted=True))
        made.tell()
    assert channel.said == [Collect()] * 2


def _connection(number: int, family: int, *, is_noted: bool) -> Any:
    outbox = SimpleNamespace(
        begin_note=lambda: None, is_noted=is_noted, peer="a Unix socket", identity=SimpleNamespace(names=())
    )
    return SimpleNamespace(number=number, family=family, outbox=outbox, is_closed=False, fileno=lambda: 0)
