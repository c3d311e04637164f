"""Both engines get the same bytes in the same pieces: each reply, each error, each end and each count is alike."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from fuzz import Source

from rpccluster.ipc.scoreboard import Cell
from rpccluster.worker.hot.choice import why_not_compiled

from . import rig
from .rig import Peer, Rig, settle

pytestmark = pytest.mark.skipif(bool(why_not_compiled()), reason="there is no compiled engine")

SEEDS = 400


class Alike:
    """A service whose methods show what they got, by type."""

    def echo(self, value: Any = None) -> Any:
        return value

    def shown(self, *values: Any) -> str:
        return repr(values)

    def two(self, one: int, other: int) -> int:
        return one + other

    def fail(self, text: str = "") -> None:
        raise ValueError(text)

    def large(self, size: int = 5000) -> bytes:
        return b"x" * (size if type(size) is int and 0 <= size < 100_000 else 0)

    wait = echo


def streams(seed: int) -> list[bytes]:
    """What a peer sends, in pieces: mostly right calls, some of them mutated."""
    choice = random.Random(seed)
    source = Source(choice)
    data = bytearray(b"".join(source.message() for _ in range(choice.randint(1, 12))))
    for _ in range(choice.choice((0, 0, 1, 2))):
        source.mutate(data)
    cuts = sorted(choice.sample(range(len(data) + 1), min(choice.randint(0, 6), len(data))))
    return [bytes(data[start:end]) for start, end in zip([0, *cuts], [*cuts, len(data)])]


def outcome(engine: str, pieces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an engine answers, and what it counts."""
    monkeypatch.setattr(rig, "ENGINE", engine)
    made = Rig(Alike(), max_message_size=1 << 14, max_pending_calls=50, max_depth=12)
    peer = made.connect()
    for piece in pieces:
        if not peer.connection.is_closed:
            try:
                peer.send(piece)
            except OSError:
                break
        settle()
    received, is_at_end = received_by(peer)
    found = {
        "replies": received,
        "is at its end": is_at_end,
        "is closed": peer.connection.is_closed,
        "limits": limits_of(made),
        "errors": made.cells[Cell.ERRORS],
        "calls": made.engine.calls,
        "pending": peer.connection.is_closed or peer.connection.outbox.pending,
        "is incomplete": peer.connection.is_closed or peer.connection.inbox.partial is not None,
    }
    made.close()
    return found


def received_by(peer: Peer) -> tuple[bytes, bool]:
    """Every byte that has come, and whether it is the end."""
    received = b""
    while True:
        settle()
        try:
            data = peer.sock.recv(1 << 20)
        except BlockingIOError:
            return received, False
        except ConnectionResetError:
            data = b""
        if not data:
            return received, True
        received += data


def limits_of(made: Rig) -> dict[str, int]:
    """What was counted, without two differences that do no harm.

    Only the Python engine counts calls as pending that wait for their turn, and so may pass ``max_pending_calls``. Of a
    value that is too deep and no call, both of which end its connection, only one is told.
    """
    limits = made.limit_counts()
    limits.pop("max_pending_calls", None)
    limits["refused"] = limits.pop("max_depth", 0) + limits.pop("not_messagepack_rpc", 0)
    return limits


@pytest.mark.parametrize("seed", range(0, SEEDS, 40))
def test_they_are_alike(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty streams each."""
    for number in range(seed, seed + 40):
        pieces = streams(number)
        assert outcome("compiled", pieces, monkeypatch) == outcome("python", pieces, monkeypatch), number


def encodings() -> list[bytes]:
    """Values of every kind, at the borders of their forms, in every form that can hold them."""
    found = [bytes([first]) for first in (*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100))]
    for number, form in enumerate((0xCC, 0xCD, 0xCE, 0xCF)):
        size = 1 << number
        found += [bytes([form]) + value.to_bytes(size, "big") for value in (0, 1, 127, (1 << 8 * size) - 1)]
    for number, form in enumerate((0xD0, 0xD1, 0xD2, 0xD3)):
        size = 1 << number
        least = -(1 << (8 * size - 1))
        for value in (least, least + 1, -100, -33, -32, -1, 0, 100, -least - 1):
            found.append(bytes([form]) + value.to_bytes(size, "big", signed=True))
    floats = (0.0, -0.0, 1.5, float("inf"), float("-inf"))
    found += [b"\xca" + struct.pack(">f", value) for value in floats]
    found += [b"\xcb" + struct.pack(">d", value) for value in (*floats, 1e300, 0.1)]
    for forms in ((0xD9, 0xDA, 0xDB), (0xC4, 0xC5, 0xC6)):
        for width, form in zip((1, 2, 4), forms):
            sizes = [size for size in (0, 1, 31, 32, 255, 256, 300) if size < 1 << 8 * width]
            found += [bytes([form]) + size.to_bytes(width, "big") + b"x" * size for size in sizes]
    found += [b"\xd9\x02\xc3\xa4", b"\xd9\x01\xff", b"\xa1\xe4"]
    for width, arrays, maps in ((2, b"\xdc", b"\xde"), (4, b"\xdd", b"\xdf")):
        for size in (0, 1, 15, 16, 100):
            found.append(arrays + size.to_bytes(width, "big") + b"\xd0\x9c" * size)
            keys = b"".join(bytes([key]) + b"\xd1\xff\x00" for key in range(size))
            found.append(maps + size.to_bytes(width, "big") + keys)
    return found


def test_every_form_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a method gets is the same, by its repr; so is what it returns, by its bytes."""
    for value in encodings():
        pieces = [b"\x94\x00\x01\xa5shown\x91" + value, b"\x94\x00\x02\xa4echo\x91" + value]
        told = outcome("compiled", pieces, monkeypatch)
        assert told == outcome("python", pieces, monkeypatch), value[:20]
        assert told["calls"] == 2
