"""A call that cannot be read, or is worded otherwise than most, is its own caller's affair and nobody else's."""

from __future__ import annotations

from typing import Any, Callable

import msgpack
import pytest

from rpccluster.ipc.scoreboard import Cell
from rpccluster.protocol.outline import Bounds
from rpccluster.protocol.skip import Skip
from rpccluster.worker.hot.repacking import packed_again

from ..connections.test_moving import move, wait_read
from ..rig import Rig, until

LIMIT = 10_000


@pytest.fixture
def make_rig(make_rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """Workers with a small limit for messages."""
    return lambda service=None, **options: make_rig(service, **{"max_message_size": LIMIT, "max_depth": 10, **options})


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


def nested(depth: int) -> Any:
    """``depth`` lists in each other."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


ECHO = b"\x94\x00\x07\xa4echo\x91"
TOO_LARGE = f"ArgumentError: found a message of more than {LIMIT} bytes (max_message_size)"
TOO_DEEP = "ArgumentError: found a message nested more than 10 deep (max_depth)"
NO_KEY = "ArgumentError: found a map with a map in a key, which no dict can have"
NO_ARRAY = "ArgumentError: found params of type %s, expected an array"
BROKEN = "ArgumentError: found bytes that are not MessagePack, or pass max_message_size (ValueError)"

UNREADABLE = {
    "too large": (ECHO + msgpack.packb(bytes(LIMIT)), TOO_LARGE, "max_message_size"),
    "much too large": (ECHO + msgpack.packb([1.5] * LIMIT), TOO_LARGE, "max_message_size"),
    "too deep": (ECHO + msgpack.packb(nested(10)), TOO_DEEP, "max_depth"),
    "too deep and long": (ECHO + msgpack.packb([nested(10)] * 100), TOO_DEEP, "max_depth"),
    "a map as a key": (ECHO + b"\x81\x80\x01", NO_KEY, "not_messagepack_rpc"),
    "a bad timestamp": (ECHO + b"\xd7\xff" + b"\xff" * 8, BROKEN, "not_messagepack_rpc"),
    "params that are a map": (b"\x94\x00\x07\xa4echo\x80", NO_ARRAY % "dict", "not_messagepack_rpc"),
    "params that are nil": (b"\x94\x00\x07\xa4echo\xc0", NO_ARRAY % "NoneType", "not_messagepack_rpc"),
    "params that are a str": (b"\x94\x00\x07\xa4echo\xa1x", NO_ARRAY % "str", "not_messagepack_rpc"),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("step", [0, 1, 4000], ids=["whole", "byte by byte", "in pieces"])
def test_it_is_answered_with_an_error(rig: Rig, name: str, step: int, caplog: pytest.LogCaptureFixture) -> None:
    """Four calls that run on the same connection are answered, and so is what comes behind it; the log says why."""
    message, error, limit = UNREADABLE[name]
    peer = rig.connect()
    for gate in range(4):
        peer.post("wait", gate)
    until(lambda: len(rig.service.began) == 4)
    for at in range(0, min(len(message), 30) if step == 1 else len(message), step or len(message)):
        peer.send(message[at : at + (step or len(message))])
        wait_read(peer)
    peer.send(message[30:] if step == 1 else b"")
    assert peer.wait(1) == [[7, error, None]]
    assert peer.call("echo", "behind") == "behind"
    rig.service.open(*range(4))
    assert [reply[0::2] for reply in peer.wait(6)[2:]] == [[number + 1, number] for number in range(4)]
    assert rig.limit_counts() == {limit: 1}
    assert rig.cells[Cell.ERRORS] == 1
    why = error.partition(": ")[2]
    assert [record.getMessage() for record in caplog.records] == [f"Refusing a call of 127.0.0.1:4711: {why}"]
    until(lambda: rig.engine.is_quiet)
    assert peer.connection.outbox.pending == 0


def test_a_notification_that_cannot_be_read_ends_nothing(rig: Rig) -> None:
    """The log is told, and the calls around it are answered."""
    peer = rig.connect()
    peer.send(b"\x93\x02\xa4echo\x91" + msgpack.packb(bytes(LIMIT)) + b"\x93\x02\xa4echo\x91\x81\x80\x01")
    assert peer.call("echo", 1) == 1
    assert rig.service.began == [1]
    assert rig.limit_counts() == {"max_message_size": 1, "not_messagepack_rpc": 1}
    assert peer.connection.outbox.pending == 0


def test_its_bytes_are_not_kept(make_rig: Callable[..., Rig]) -> None:
    """Of one that is far too large nothing but its head is ever in memory; who never ends it is closed in time."""
    rig = make_rig(message_timeout=5)
    peer = rig.connect()
    peer.send(ECHO + b"\xc6" + (15 * LIMIT).to_bytes(4, "big") + bytes(14 * LIMIT))
    assert peer.wait(1) == [[7, TOO_LARGE, None]]
    wait_read(peer)
    assert len(peer.connection.inbox.partial.data) < 40
    rig.jump(6)
    assert peer.connection.is_closed
    assert rig.limit_counts() == {"max_message_size": 1, "message_timeout": 1}


def test_a_tuple_as_a_key_comes_back(make_rig: Callable[..., Rig]) -> None:
    """What one Python sends another can hold."""
    peer = make_rig(max_message_size=100_000).connect()
    packed = ECHO + b"\x81\x92\x01\x02\xa1x"
    peer.send(packed + ECHO + b"\x92\xc5\x50\x00" + bytes(0x5000) + b"\x81\x92\x01\x02\xa1x")
    peer._unpacker = msgpack.Unpacker(strict_map_key=False, use_list=False)
    assert [reply[2] for reply in peer.wait(2)] == [{(1, 2): "x"}, (bytes(0x5000), {(1, 2): "x"})]


@pytest.mark.parametrize("offset", range(0, 60, 7))
def test_it_moves(make_rig: Callable[..., Rig], offset: int) -> None:
    """A connection goes to another worker while a message is passed over, with one refused already in the queue."""
    donor, adopter = make_rig(max_greenlets=1), make_rig()
    peer = donor.connect()
    service = donor.service
    peer.post("wait", "gate")
    until(lambda: service.began)
    message = ECHO + b"\x92\xc5\x30\x00" + bytes(0x3000)
    message += b"\xdc\x00\x07\xcd\x00\x01\xa3abc\xd9\x01x\xca\0\0\0\0\xc0\x01\xc4\x03abc"
    behind = msgpack.packb([0, 8, "echo", ["behind"]])
    peer.send(ECHO + msgpack.packb(nested(10)) + b"\x94\x00\x06\xa4echo\xc0" + message[: 0x3006 + offset])
    wait_read(peer)
    move(peer, donor, adopter)
    service.open("gate")
    peer.send(message[0x3006 + offset :] + behind)
    replies = sorted(peer.wait(5))
    assert replies[0][2] == "gate"
    assert [reply[1] for reply in replies[1:4]] == [NO_ARRAY % "NoneType", TOO_DEEP, TOO_LARGE]
    assert replies[4] == [8, None, "behind"]
    assert adopter.service.began == ["behind"]


UNREADABLE_PARAMS = {
    "too large": b"\x91" + msgpack.packb(bytes(LIMIT)),
    "too deep": b"\x91" + msgpack.packb(nested(10)),
    "a map as a key": b"\x91\x81\x80\x01",
}


@pytest.mark.parametrize("name", UNREADABLE_PARAMS)
def test_a_notification_that_cannot_be_read_moves(
    make_rig: Callable[..., Rig], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends nothing where it went, either; the log is told there."""
    donor, adopter = make_rig(max_greenlets=1), make_rig()
    peer = donor.connect()
    peer.post("wait", "gate")
    until(lambda: donor.service.began)
    peer.send(b"\x93\x02\xa4echo" + UNREADABLE_PARAMS[name] + msgpack.packb([0, 8, "echo", ["behind"]]))
    wait_read(peer)
    move(peer, donor, adopter)
    assert peer.wait(1) == [[8, None, "behind"]]
    assert "Refusing a call of 127.0.0.1:4711: found a m" in caplog.text
    donor.service.open("gate")
    assert peer.wait(2)[1] == [1, None, "gate"]
    assert peer.connection.is_at_rest


def test_what_is_packed_again_is_what_came() -> None:
    """Tuples as keys, too."""
    message = [0, 1, "m", [{(1, (2,)): "x"}]]
    assert packed_again([message]) == [msgpack.packb(message)]


def test_what_is_no_list_is_not_packed_again() -> None:
    """Of an extension the same bytes may say that the rest of a message is to be passed over."""
    mark = Skip(1, Bounds(LIMIT, 10)).data
    value = msgpack.unpackb(mark)
    assert packed_again([value, "text", None, {1: 2}]) == [b"\xc1"] * 4


def test_an_extension_that_moves_is_no_mark(make_rig: Callable[..., Rig]) -> None:
    """It ends the connection where it went, as it would have here; nothing behind it is passed over."""
    donor, adopter = make_rig(max_greenlets=1), make_rig()
    holder, peer = donor.connect(), donor.connect()
    holder.post("wait", "gate")
    until(lambda: donor.service.began)
    peer.send(Skip(1, Bounds(LIMIT, 10)).data)
    wait_read(peer)
    move(peer, donor, adopter)
    peer.wait_end()
    assert adopter.limit_counts() == {"not_messagepack_rpc": 1}


# -- names of bin type


@pytest.mark.parametrize("size", [0, 40_000], ids=["short", "long"])
def test_a_name_of_bin_type_is_taken(make_rig: Callable[..., Rig], size: int) -> None:
    """As msgpack-rpc-python and pynvim send it; in requests and in notifications."""
    rig = make_rig(max_message_size=100_000)
    peer = rig.connect()
    for msgid in range(50):
        peer.send(msgpack.packb([0, msgid, b"echo", [[msgid, bytes(size)]]]))
        peer.send(msgpack.packb([2, b"echo", [[msgid, bytes(size)]]]))
        peer.look()
    assert peer.wait(50) == [[msgid, None, [msgid, bytes(size)]] for msgid in range(50)]
    until(lambda: len(rig.service.began) == 100, "the last notification has begun")
    assert sorted(value[0] for value in rig.service.began) == sorted([*range(50)] * 2)
    assert rig.cells[Cell.ERRORS] == 0
    until(lambda: rig.engine.is_quiet)
    assert rig.engine.calls == 100
    assert peer.connection.outbox.pending == 0


def test_calls_with_names_of_both_types_begin_in_their_order(rig: Rig) -> None:
    """And a call that blocks holds up none of them."""
    peer = rig.connect()
    names: list[Any] = ["echo", b"echo"]
    messages = [[0, number, names[number % 2], [number]] for number in range(20)]
    messages.insert(5, [0, 99, b"wait", ["gate"]])
    peer.send(b"".join(map(msgpack.packb, messages)))
    assert [reply[2] for reply in peer.wait(20)] == list(range(20))
    assert [value for value in rig.service.began if value != "gate"] == list(range(20))
    rig.service.open("gate")
    assert peer.wait(21)[20] == [99, None, "gate"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (b"nosuch", "'nosuch' method not found"),
        (b"_hidden", "'_hidden' method not found"),
        (b"\xff", "'\udcff' method not found"),
        (b"", "'' method not found"),
    ],
)
def test_a_name_of_bin_type_that_is_no_method(rig: Rig, name: bytes, error: str) -> None:
    """Is answered as any other."""
    peer = rig.connect()
    peer.send(msgpack.packb([0, 1, name, []]) + msgpack.packb([0, 2, b"fail", ["x"]]))
    assert peer.wait(2) == [[1, error, None], [2, "RuntimeError: x", None]]


@pytest.mark.parametrize("name", [b"\xc0", b"\x05", b"\x91\xa1m", b"\xc2", b"\xcb" + bytes(8)], ids=repr)
def test_a_name_that_is_neither_closes_the_connection(rig: Rig, name: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """With the part that is wrong in the log."""
    peer = rig.connect()
    peer.send(msgpack.packb([0, 1, b"echo", [1]]) + b"\x94\x00\x02" + name + b"\x90")
    peer.send(msgpack.packb([0, 3, "echo", [3]]))
    peer.wait_end()
    assert [reply[1:] for reply in peer.replies] == [[1, None, 1]]
    assert rig.service.began == [1]
    (record,) = caplog.records
    assert "the request's method is" in record.getMessage()
    assert "neither str nor bin" in record.getMessage()


def test_a_bin_named_method_shows_as_any_other(rig: Rig) -> None:
    """In the running method, by which a hang is told."""
    peer = rig.connect()
    peer.send(msgpack.packb([0, 1, b"wait", ["gate"]]))
    until(lambda: rig.service.began)
    ((_, message),) = list(rig.engine.running())
    assert message == [0, 1, "wait", ["gate"]]
