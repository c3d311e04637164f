"""What the compiled engine notes in its ledger, read as the master would if the worker died at that moment."""

from __future__ import annotations

import itertools
import mmap
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import psutil
import pytest

from rpccluster.ipc.fdpass import memory_file
from rpccluster.ledger.layout import BEGUN, HEADER, LOW_PEEK_OFFSET, RECORD, UNIX_COUNT, Shape
from rpccluster.ledger.reading import Counted, Ledger, Rebuilt
from rpccluster.system.stream_counters import stream_counters, unix_state
from rpccluster.worker.hot.choice import why_not_compiled

from .rig import Peer, Rig, settle, until, wait_read

pytestmark = pytest.mark.skipif(bool(why_not_compiled()), reason="the compiled engine alone notes anything")


class Noted:
    """A rig whose ledger is looked into."""

    def __init__(
        self, make_rig: Callable[..., Rig], arena_bytes: int = 1 << 22, begun: int = 4096, *, tcp: bool = True
    ) -> None:
        self.shape = Shape.fitting(100, begun, arena_bytes)
        self.tcp = tcp
        self.file = memory_file(name="ledger")
        os.ftruncate(self.file, self.shape.size)
        self.memory = mmap.mmap(self.file, self.shape.size)
        self.rig = make_rig(ledger=(self.memory, self.shape), max_message_size=1 << 22)
        numbers = itertools.count(1)
        self.rig.context.number_for = lambda sock: next(numbers)
        self.rig.context.on_served = lambda connection: connection.outbox.begin_note()

    def connect(self, buffer_bytes: int = 0) -> Peer:
        return self.rig.connect(tcp=self.tcp, buffer_bytes=buffer_bytes)

    def read(self, place: int, length: int) -> bytes:
        return bytes(self.memory[place : place + length])

    @property
    def resident_bytes(self) -> int:
        """How much of its memory it has taken."""
        return os.fstat(self.file).st_blocks * 512

    def look(self, peer: Peer) -> Rebuilt | None:
        """What the master would rebuild of this connection now."""
        counted = self.counted(peer)
        assert counted is not None
        return Ledger(self.read, self.shape).rebuild(peer.connection.number, counted)

    def counted(self, peer: Peer) -> Counted | None:
        """What was read and written of this connection; None if nobody could tell."""
        if not self.tcp:
            ledger = Ledger(self.read, self.shape)
            return ledger.counted(peer.connection.number, unix_state(peer.connection._socket).peek_offset)
        counters = stream_counters(peer.connection._socket)
        return counters and Counted(counters.read, counters.written)

    def needs(self, peer: Peer) -> tuple[bytes, bytes, list[int], int]:
        found = self.look(peer)
        assert found is not None
        return found.input, found.output, sorted(found.lost), found.notifications

    def assert_empty(self) -> None:
        """Nothing is left of any connection."""
        ledger = Ledger(self.read, self.shape)
        assert not any(number in ledger for number in range(1, 1000))


@pytest.fixture(params=[True, False], ids=["tcp", "unix"])
def noted(make_rig: Callable[..., Rig], request: pytest.FixtureRequest) -> Iterator[Callable[..., Noted]]:
    made: list[Noted] = []

    def make(**options: Any) -> Noted:
        made.append(Noted(make_rig, **options, tcp=request.param))
        return made[-1]

    yield make
    for each in made:
        for peer in each.rig.peers:
            peer.connection.close()
        each.assert_empty()
        os.close(each.file)


def request(msgid: int, method: str, *params: Any) -> bytes:
    packed: bytes = msgpack.packb([0, msgid, method, params])
    return packed


NOTHING = (b"", b"", [], 0)


def test_the_words_of_the_layout_are_those_of_the_engine() -> None:
    assert (HEADER.size, RECORD.size, BEGUN.size, UNIX_COUNT.size) == (24, 64, 32, 32)


def test_it_tells_how_many_records_there_have_been_at_once(noted: Callable[..., Noted]) -> None:
    rig = noted()
    for _ in range(3):
        rig.connect().connection.close()
    peers = [rig.connect(), rig.connect()]
    assert HEADER.unpack(rig.read(0, HEADER.size))[2] == 2
    assert [rig.needs(peer) for peer in peers] == [NOTHING, NOTHING]


def test_at_rest_it_needs_nothing(noted: Callable[..., Noted]) -> None:
    rig = noted()
    peer = rig.connect()
    assert rig.needs(peer) == NOTHING
    assert peer.call("echo", "x") == "x"
    assert rig.needs(peer) == NOTHING


def test_half_a_message_is_its_input(noted: Callable[..., Noted]) -> None:
    rig = noted()
    peer = rig.connect()
    whole = request(7, "echo", "y" * 100_000)
    sent = 0
    for end in (1, 5, 3000, 70_000, 100_000):
        peer.send(whole[sent:end])
        sent = end
        wait_read(peer)
        settle()
        assert rig.needs(peer) == (whole[:end], b"", [], 0)
    peer.send(whole[sent:])
    peer.wait(1)
    assert rig.needs(peer) == NOTHING


def test_a_call_that_has_begun_is_lost_until_it_is_answered(noted: Callable[..., Noted]) -> None:
    rig = noted()
    peer = rig.connect()
    for name in "abc":
        peer.post("wait", name)
    peer.notify("wait", "d")
    until(lambda: len(rig.rig.service.began) == 4)
    assert peer.call("echo", 1) == 1
    assert rig.needs(peer) == (b"", b"", [1, 2, 3], 1)
    rig.rig.service.open("b", "d")
    peer.wait(2)
    until(lambda: len(rig.rig.service.ended) == 2)
    settle()
    assert rig.needs(peer) == (b"", b"", [1, 3], 0)
    rig.rig.service.open("a", "c")
    peer.wait(4)
    assert rig.needs(peer) == NOTHING


def test_calls_of_the_slow_path_are_noted_as_others_are(noted: Callable[..., Noted]) -> None:
    rig = noted()
    peer = rig.connect()
    peer.send(msgpack.packb([0, 300, b"wait", ["a"]]))  # its name is of type bin
    peer.send(msgpack.packb([0, 70_000, "rpc.call", ["wait", ["b"], {"timeout": 20}]]))
    until(lambda: len(rig.rig.service.began) == 2)
    assert rig.needs(peer) == (b"", b"", [300, 70_000], 0)
    rig.rig.service.open("a", "b")
    peer.wait(2)
    peer.send(request(3, "fail") + request(4, "nowhere") + request(5, "echo"))
    peer.wait(5)
    assert rig.needs(peer) == NOTHING


def test_what_the_peer_does_not_read_is_its_output(noted: Callable[..., Noted]) -> None:
    rig = noted()
    peer = rig.connect(buffer_bytes=10_000)
    sizes = [300_000, 20, 5000]
    for size in sizes:
        peer.post("large", size)
    until(lambda: len(rig.rig.service.began) == 3)
    settle()
    expected = b"".join(msgpack.packb([1, 1 + at, None, b"x" * size]) for at, size in enumerate(sizes))
    input, output, lost, _ = rig.needs(peer)
    assert (input, lost) == (b"", [])
    assert len(output) > 100_000
    assert expected.endswith(output)
    peer.wait(3)
    settle()
    assert rig.needs(peer) == NOTHING


def test_the_memory_of_what_was_large_is_given_back(noted: Callable[..., Noted]) -> None:
    """That of what stands there stays, and it can be used again."""
    rig = noted()
    rig.rig.engine.give_back_freed_memory()
    before = rig.resident_bytes
    peer, other = rig.connect(), rig.connect()
    whole = request(1, "echo", "y" * 1_500_000)
    for replies in (1, 2):
        peer.send(whole[:-1])
        other.send(whole[:200_000])
        wait_read(peer)
        wait_read(other)
        settle()
        peer.send(whole[-1:])
        assert peer.wait(replies)[-1] == [1, None, "y" * 1_500_000]
        assert rig.resident_bytes > before + 1_500_000
        rig.rig.engine.give_back_freed_memory()
        assert before + 200_000 < rig.resident_bytes < before + 1_000_000
        assert rig.needs(other)[0] == whole[:200_000]
        other.send(whole[200_000:])
        assert other.wait(replies)[-1] == [1, None, "y" * 1_500_000]


def test_it_tells_how_much_is_freed(noted: Callable[..., Noted]) -> None:
    """Also of a message whose rest never comes."""
    rig = noted()
    peer, engine = rig.connect(), rig.rig.engine
    peer.send(request(1, "echo", "y" * 1_500_000)[:-1])
    wait_read(peer)
    settle()
    engine.give_back_freed_memory()
    assert engine.freed_bytes == 0
    peer.close()
    until(lambda: peer.connection.is_closed)
    assert engine.freed_bytes >= 1_500_000
    engine.give_back_freed_memory()
    assert engine.freed_bytes == 0


def test_waiting_calls_are_input(noted: Callable[..., Noted]) -> None:
    rig = noted()
    rig.rig.options.set(max_pending_calls=2)
    peer = rig.connect()
    calls = [request(at, "wait", at) for at in range(20)]
    peer.send(b"".join(calls))
    until(lambda: len(rig.rig.service.began) == 3)
    settle()
    assert rig.needs(peer) == (b"".join(calls[3:]), b"", [0, 1, 2], 0)


def test_what_does_not_fit_is_not_in_it_and_comes_back(noted: Callable[..., Noted]) -> None:
    rig = noted(arena_bytes=65_536)
    peer, other = rig.connect(), rig.connect()
    whole = request(1, "echo", "y" * 500_000)
    peer.send(whole[:400_000])
    wait_read(peer)
    settle()
    assert rig.look(peer) is None
    assert rig.needs(other) == NOTHING
    peer.send(whole[400_000:])
    peer.wait(1)
    settle()
    assert rig.needs(peer) == NOTHING


def test_output_that_grows_out_of_the_ledger_and_back_stays_in_order(noted: Callable[..., Noted]) -> None:
    """It stands in a block, moves to larger ones, fits into none, and is in the ledger again once it was read."""
    rig = noted(arena_bytes=1 << 18)
    peer = rig.connect(buffer_bytes=60_000)
    chance, expected, was_bare, was_noted = random.Random(1), b"", False, False

    def look() -> None:
        nonlocal was_bare, was_noted
        settle()
        unsent = peer.connection.outbox.unsent_content()
        assert expected.endswith(unsent)
        if rig.look(peer) is None:
            was_bare = True
        else:
            was_noted = was_noted or bool(unsent)
            assert rig.needs(peer) == (b"", unsent, [], 0)

    for msgid in range(1, 101):
        value = f"{msgid} " * chance.choice([1, 6000, 6000, 12_000])
        peer.post("echo", value)
        expected += msgpack.packb([1, msgid, None, value])
        until(lambda msgid=msgid: len(rig.rig.service.began) == msgid)
        look()
        if msgid % 40 == 0:
            peer.wait(msgid - 5)
    assert was_bare
    assert was_noted
    assert [reply[0] for reply in peer.wait(100)] == list(range(1, 101))
    look()
    assert rig.needs(peer) == NOTHING


@pytest.mark.parametrize("arena_bytes", [1 << 23, 1 << 20], ids=["fits", "does not fit"])
def test_a_reply_of_long_bytes_is_between_the_others(noted: Callable[..., Noted], arena_bytes: int) -> None:
    """It is packed where it is sent from, or as others are; at its limit it is an error."""
    rig = noted(arena_bytes=arena_bytes)
    peer = rig.connect(buffer_bytes=100_000)
    sizes = [10, 262_144, 3_000_000, 5, 262_120, 4_000_000, 1, 1 << 22]
    for at, size in enumerate(sizes):
        peer.post("large", size)
        until(lambda at=at: len(rig.rig.service.began) > at)
        settle()
        if at == 2:
            found = rig.look(peer)
            assert (found is not None and len(found.output) > 2_500_000) == (arena_bytes == 1 << 23)
        if at >= 2:
            peer.wait(at + 1)
    replies = peer.wait(len(sizes))
    assert [reply[0] for reply in replies] == list(range(1, 1 + len(sizes)))
    assert [len(result) for _, _, result in replies[:-1]] == sizes[:-1]
    assert "max_message_size" in replies[-1][1]
    settle()
    assert rig.needs(peer) == NOTHING


def test_what_nobody_reads_is_held_once(noted: Callable[..., Noted]) -> None:
    """In the ledger, and nowhere else."""
    rig = noted()
    memory = psutil.Process().memory_full_info
    peers = [rig.connect(buffer_bytes=10_000) for _ in range(6)]
    for peer in peers:
        peer.post("large", 8)
        peer.wait(1)
    before = memory().uss
    for peer in peers:
        for _ in range(4):
            peer.post("large", 100_000)
    until(lambda: len(rig.rig.service.began) == 5 * len(peers))
    settle()
    unsent = sum(len(peer.connection.outbox.unsent_content()) for peer in peers)
    assert unsent > 1_000_000
    assert memory().uss - before < 1.75 * unsent  # the ledger's memory counts, too


def test_more_calls_than_fit_end_the_record(noted: Callable[..., Noted]) -> None:
    rig = noted(begun=3)
    peer, other = rig.connect(), rig.connect()
    for at in range(4):
        peer.post("wait", at)
    until(lambda: len(rig.rig.service.began) == 4)
    assert rig.counted(peer) is None or rig.look(peer) is None
    rig.rig.service.open_all()
    peer.wait(4)
    assert rig.counted(peer) is None or rig.look(peer) is None
    assert other.call("echo", 5) == 5
    assert rig.needs(other) == NOTHING


@pytest.mark.parametrize("seed", range(3))
def test_in_whatever_pieces_calls_come_the_ledger_has_all_that_is_due(noted: Callable[..., Noted], seed: int) -> None:
    """Whenever the loop rests, each call that was sent whole is answered, lost, or input; and nothing is twice."""
    chance = random.Random(seed)
    rig = noted(arena_bytes=1 << 23)
    rig.rig.engine._ledger.peek_offset = LOW_PEEK_OFFSET + 100_000  # so it becomes low now and then
    peer = rig.connect(buffer_bytes=60_000)
    sent, stream, at = 0, b"", 0
    for number in range(80):
        size = chance.choice([0, 10, 3000, 40_000])
        call = request(number, chance.choice(["echo", "echo", "wait"]), f"{number}" + "z" * size)
        stream += call
    ends = [0]
    unpacker = msgpack.Unpacker(max_buffer_size=1 << 30)
    unpacker.feed(stream)
    for _ in unpacker:
        ends.append(unpacker.tell())
    while at < len(stream):
        step = chance.choice([1, 7, 500, 20_000, 100_000])
        peer.send(stream[at : at + step])
        at = min(len(stream), at + step)
        if chance.random() < 0.3:
            wait_read(peer)
            rig.rig.service.open_all()
            settle()
        if chance.random() < 0.3:
            peer.look()
        found = rig.look(peer)
        assert found is not None
        counted = rig.counted(peer)
        assert counted is not None
        sent = counted.read
        begun = sent - len(found.input)
        assert begun in ends
        assert stream[begun:sent] == found.input
        replies: list[Any] = list(peer.look())
        assert {reply[1] for reply in replies} & set(found.lost) == set()
    until(lambda: rig.rig.service.open_all() or len(peer.look()) == 80)
    settle()
    assert rig.needs(peer) == NOTHING
    assert sorted(reply[1] for reply in peer.replies) == list(range(80))
