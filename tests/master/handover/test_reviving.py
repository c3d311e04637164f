"""Which connections of a dead worker go on, by the copies of their sockets and its ledger."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rpccluster.ipc.channel import channel_pair
from rpccluster.ipc.messages import Collect, Give, Keep
from rpccluster.ledger.file import LedgerFile
from rpccluster.ledger.layout import (
    BEGUN,
    CHECK,
    HEADER,
    INPUT_SHIFT,
    MASK,
    PEEK_OFFSET,
    RECORD,
    SENDING,
    SENDING_AT,
    UNIX_COUNT,
    Flag,
    Shape,
)
from rpccluster.master.handover.copies import Copies, Copy, revive
from rpccluster.master.handover.crashes import MOST_CONNECTIONS, Crash, Crashes
from rpccluster.system.stream_counters import COUNTS_STREAMS

from ..made_up import ready
from .rig import Rig

pytestmark = pytest.mark.skipif(not COUNTS_STREAMS, reason="only Linux counts streams")

SHAPE = Shape.fitting(4, 8, 65_536)
NUMBER, SERIAL = 5 << 32 | 1, 5
SO_PEEK_OFF = 42
PEER = ["127.0.0.1", 4711]


class Dead:
    """A worker that has read 100 bytes of a connection, and written 10, before it died."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.served, _ = listener.accept()
        self.ledger = LedgerFile(SHAPE)
        self.client.sendall(b"i" * 100)
        assert len(self.served.recv(100, socket.MSG_WAITALL)) == 100
        self.served.sendall(b"o" * 10)

    def note(
        self, input: bytes = b"", output: bytes = b"", lost: int = 0, flags: int = 0, current: int = NUMBER
    ) -> None:
        """Let the last bytes that were read stand in the ledger, output behind what was written, and a begun call."""
        border, at = INPUT_SHIFT + 100 - len(input), SHAPE.arena_at
        os.pwrite(self.ledger.descriptor, input, at)
        os.pwrite(self.ledger.descriptor, output, at + 1000)
        fields = (NUMBER, NUMBER ^ CHECK, border, at - border, 10 + len(output), at + 1000 - 10, flags, 77)
        os.pwrite(self.ledger.descriptor, RECORD.pack(*(each & MASK for each in fields)), SHAPE.records_at)
        os.pwrite(self.ledger.descriptor, HEADER.pack(1, current, 1), 0)
        os.pwrite(self.ledger.descriptor, BEGUN.pack(NUMBER if lost else 0, border, 0, lost, 0), SHAPE.begun_at)

    def revived(
        self, crashes: Crashes | None = None, crash: Crash | None = None, given: Give | None = None
    ) -> Give | None:
        copy = Copy(PEER, ["key:shop"], [os.dup(self.served.fileno())], given)
        found = list(revive({NUMBER: copy}, self.ledger, SERIAL, crashes or Crashes(), crash))
        for each in found:
            for descriptor in each.descriptors:
                os.close(descriptor)
            assert isinstance(each.message, Give)
            return each.message
        with pytest.raises(OSError):
            os.fstat(copy.descriptors[0])
        return None


@pytest.fixture
def dead() -> Iterator[Dead]:
    made = Dead()
    yield made
    made.client.close()
    made.served.close()
    made.ledger.close()


def test_it_goes_on_with_what_was_not_begun_and_not_sent(dead: Dead) -> None:
    dead.note(b"abc", b"reply", lost=9)
    expected = Give(NUMBER, PEER, False, b"abc", b"reply", [[SERIAL, 9]], identity=["key:shop"])
    assert dead.revived() == expected


def test_a_unix_socket_goes_on_by_the_counts_in_the_ledger(dead: Dead) -> None:
    """Not without them, and not if the worker had ended its direction."""
    client, served = socket.socketpair()
    with client, dead.served:
        dead.served = served
        served.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, PEEK_OFFSET)
        client.sendall(b"i" * 100)
        assert len(served.recv(100)) == 100
        assert dead.revived() is None
        dead.note(b"abc", b"a reply", lost=9)
        os.pwrite(dead.ledger.descriptor, UNIX_COUNT.pack(PEEK_OFFSET, 0, 10), SHAPE.unix_counts_at)
        os.pwrite(dead.ledger.descriptor, SENDING.pack(2, NUMBER, 10), SENDING_AT)
        expected = Give(NUMBER, PEER, False, b"abc", b"reply", [[SERIAL, 9]], identity=["key:shop"])
        assert dead.revived() == expected
        served.shutdown(socket.SHUT_WR)
        assert dead.revived() is None


def test_a_wish_for_the_end_is_asked_again(dead: Dead) -> None:
    dead.note(flags=Flag.CLOSING)
    found = dead.revived()
    assert found is not None
    assert found.input == b"\x94\x00\x4d\xabrpc.closing\x90"


def test_what_the_ledger_does_not_know_has_ended(dead: Dead) -> None:
    assert dead.revived() is None


def test_what_nothing_was_read_of_begins_anew() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        served, _ = listener.accept()
    ledger = LedgerFile(SHAPE)
    copy = Copy(PEER, [], [served.detach()])
    (found,) = revive({NUMBER: copy}, ledger, SERIAL, Crashes())
    assert found.message == Give(NUMBER, PEER, False, b"", b"", [])
    os.close(found.descriptors[0])
    ledger.close()


def test_what_its_adopter_has_not_begun_with_goes_to_another_as_it_came(dead: Dead) -> None:
    given = Give(NUMBER, PEER, True, b"in", b"out", [[3, 4]])
    assert dead.revived(given=given) == given


@pytest.mark.parametrize(
    "end",
    [lambda dead: dead.served.shutdown(socket.SHUT_WR), lambda dead: dead.served.shutdown(socket.SHUT_RDWR)],
    ids=["its direction", "both"],
)
def test_what_the_worker_had_ended_has_ended(dead: Dead, end: Callable[[Dead], None]) -> None:
    dead.note(b"abc")
    end(dead)
    assert dead.revived() is None


def test_bytes_that_look_like_the_state_of_another_worker_are_no_message(dead: Dead) -> None:
    dead.note(b"\xc7\x1d\x7f" + b"x" * 29)
    found = dead.revived()
    assert found is not None
    assert found.input == b"\xc1"


def crash(now: float, pause_seconds: float = 30.0) -> Crash:
    return Crash(now, "render", pause_seconds)


def test_a_message_at_which_two_workers_crash_is_read_by_no_third(dead: Dead) -> None:
    crashes = Crashes()
    dead.note(b"abc")
    assert dead.revived(crashes, crash(1.0)) is not None
    assert dead.revived(crashes) is not None  # killed from outside
    assert dead.revived(crashes, crash(2.0)) is None


def revived_unix(dead: Dead, crashes: Crashes, read: int, crash: Crash | None) -> Give | None:
    """Let the owner of a Unix socket die that has read so much, of which the last three bytes had not begun."""
    dead.served.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, PEEK_OFFSET - read)
    border, at = INPUT_SHIFT + read - 3, SHAPE.arena_at
    fields = (NUMBER, NUMBER ^ CHECK, border, at - border, 0, at, 0, 0)
    os.pwrite(dead.ledger.descriptor, RECORD.pack(*(each & MASK for each in fields)), SHAPE.records_at)
    os.pwrite(dead.ledger.descriptor, UNIX_COUNT.pack(PEEK_OFFSET, 0, 0), SHAPE.unix_counts_at)
    return dead.revived(crashes, crash)


@pytest.fixture
def unix(dead: Dead) -> Iterator[Dead]:
    client, served = socket.socketpair()
    with client, dead.served:
        dead.served = served
        dead.note(b"abc")
        yield dead


def test_a_message_of_a_unix_socket_is_known_again_though_each_owner_counts_from_0(unix: Dead) -> None:
    crashes = Crashes()
    assert revived_unix(unix, crashes, 100, crash(1.0)) is not None
    assert revived_unix(unix, crashes, 0, None) is not None  # killed from outside
    assert revived_unix(unix, crashes, 0, crash(2.0)) is None


def test_another_message_of_a_unix_socket_is_not_taken_for_that_at_the_same_offset(unix: Dead) -> None:
    """An owner between the two crashes has begun with the first message, and was killed."""
    crashes = Crashes()
    assert revived_unix(unix, crashes, 100, crash(1.0)) is not None
    assert revived_unix(unix, crashes, 3, None) is not None
    assert revived_unix(unix, crashes, 0, crash(2.0)) is not None


@pytest.mark.parametrize("peer", [PEER, []], ids=["TCP", "Unix"])
def test_a_unix_socket_that_moves_begins_anew(rig: Rig, peer: list[Any]) -> None:
    """Its next owner counts from 0: what stood at an offset may be another message then. TCP's offsets go on."""
    rig.broker._crashes.note_message(NUMBER, -3)
    rig.says(rig.add(ready()), Give(NUMBER, peer, False, b"abc", b"", []))
    assert rig.broker._crashes.follow_message(NUMBER, -3, -3) == bool(peer)


def test_a_crash_at_another_message_counts_anew(dead: Dead) -> None:
    crashes = Crashes()
    dead.note(b"abc")
    assert dead.revived(crashes, crash(1.0)) is not None
    dead.note(b"bc")
    assert dead.revived(crashes, crash(2.0)) is not None


def unread_until(dead: Dead, crashes: Crashes, crash: Crash | None) -> float:
    found = dead.revived(crashes, crash)
    assert found is not None
    return found.unread_until


def test_a_connection_at_whose_calls_three_workers_crash_is_not_read_for_a_while(
    dead: Dead, caplog: pytest.LogCaptureFixture
) -> None:
    """Within a minute; a kill meanwhile changes nothing, and then it is read again, until it has crashed three more."""
    crashes = Crashes()
    dead.note(lost=9)
    assert [unread_until(dead, crashes, crash(now)) for now in (100.0, 130.0, 159.0)] == [0.0, 0.0, 189.0]
    assert [record.getMessage() for record in caplog.records] == [
        "Not reading from tcp://127.0.0.1:4711 for 30 seconds: "
        "three workers crashed at its calls within a minute, the last in render"
    ]
    assert unread_until(dead, crashes, None) == 189.0
    assert [unread_until(dead, crashes, crash(now)) for now in (200.0, 201.0)] == [189.0] * 2  # which is over
    assert unread_until(dead, crashes, crash(202.0)) == 232.0


def test_crashes_further_apart_are_forgiven(dead: Dead) -> None:
    crashes = Crashes()
    dead.note(lost=9)
    assert [unread_until(dead, crashes, crash(now)) for now in (100.0, 130.0, 161.0, 189.0)] == [0.0, 0.0, 0.0, 219.0]


def test_without_a_pause_it_is_read_on(dead: Dead) -> None:
    crashes = Crashes()
    dead.note(lost=9)
    assert [unread_until(dead, crashes, crash(now, 0.0)) for now in (1.0, 2.0, 3.0, 4.0)] == [0.0] * 4


def test_a_kill_from_outside_is_nobodys_fault(dead: Dead) -> None:
    crashes = Crashes()
    dead.note(lost=9)
    assert [unread_until(dead, crashes, None) for _ in range(4)] == [0.0] * 4


@pytest.mark.parametrize("current", [0, NUMBER + 1], ids=["no input", "an input without calls"])
def test_where_nobody_knows_it_any_call_that_has_begun_is_blamed(dead: Dead, current: int) -> None:
    crashes = Crashes()
    dead.note(lost=9, current=current)
    assert [unread_until(dead, crashes, crash(now)) for now in (1.0, 2.0, 3.0)] == [0.0, 0.0, 33.0]


def test_a_call_beside_the_one_that_crashes_is_not_blamed(dead: Dead) -> None:
    """The worker was at the input of another connection, of which a call has begun."""
    crashes = Crashes()
    other = NUMBER + 1
    dead.note(lost=9, current=other)
    record = (other, other ^ CHECK, INPUT_SHIFT, 0, 0, 0, 0, 0)
    os.pwrite(dead.ledger.descriptor, RECORD.pack(*record), SHAPE.records_at + RECORD.size)
    os.pwrite(dead.ledger.descriptor, HEADER.pack(2, other, 2), 0)
    os.pwrite(dead.ledger.descriptor, BEGUN.pack(other, INPUT_SHIFT, 0, 7, 0), SHAPE.begun_at + BEGUN.size)
    assert [unread_until(dead, crashes, crash(now)) for now in (1.0, 2.0, 3.0)] == [0.0] * 3


def test_not_more_connections_are_remembered_than_may(dead: Dead) -> None:
    crashes = Crashes()
    for number in range(MOST_CONNECTIONS + 1):
        assert not crashes.note_calls(number, crash(1.0))
        assert not crashes.note_calls(number, crash(1.0))
    assert not crashes.note_calls(0, crash(1.0))  # the third, but the first ones are forgotten
    assert crashes.note_calls(MOST_CONNECTIONS, crash(1.0))


def test_there_are_no_more_copies_than_may_be(caplog: pytest.LogCaptureFixture) -> None:
    """One that ends makes room; what has none is closed, which the log says."""
    pairs = [socket.socketpair() for _ in range(4)]
    copies = Copies(lambda: 2)
    for number, (one, _) in enumerate(pairs[:3]):
        copies.keep("worker" if number else "another", number, Copy([], [], [one.detach()]))
    assert (copies.count("another"), copies.count("worker")) == (1, 1)
    assert pairs[2][1].recv(1) == b""
    assert "this process may hold copies of 2 (RLIMIT_NOFILE)" in caplog.text
    assert (copies.reasons("worker"), copies.reasons("another")) == ({"descriptors": 1}, {})
    copies.drop("another", 0)
    copies.keep("worker", 3, Copy([], [], [pairs[3][0].detach()]))
    assert copies.count("worker") == 2
    for copy in copies.take_all("worker").values():
        os.close(copy.descriptors[0])
    one, other = socket.socketpair()
    copies.keep("worker", 4, Copy([], [], [one.detach()]))
    assert copies.count("worker") == 1
    copies.close()
    for sock in (other, *(ours for _, ours in pairs)):
        sock.close()


def test_a_copy_takes_little_memory() -> None:
    """At most 0.4 KiB: as what comes with a message, each has strings of its own at first."""
    tracemalloc = pytest.importorskip("tracemalloc")  # CPython alone has it
    copies = Copies(lambda: 10_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1000, 4000):
            peer, identity = ["192.168.100." + str(number % 10), 40_000 + number], ["key:" + "shop"]
            copies.keep("worker", number, Copy(peer, identity, [number]))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        assert len(copies.take_all("worker")) == 3000  # their descriptors are made up
    assert (after - before) / 3000 < 400


def test_why_there_is_no_copy_is_known_until_the_connection_has_ended_or_left() -> None:
    one, other = socket.socketpair()
    copies = Copies()
    copies.note_noted("worker", 1, "ledger_full")
    copies.keep("worker", 2, Copy([], [], [one.detach()]))
    copies.note_noted("worker", 2, "kind_of_socket")
    assert other.recv(1) == b""
    other.close()
    copies.note_noted("another", 3, "ledger_full")
    assert copies.reasons("worker") == {"ledger_full": 1, "kind_of_socket": 1}
    copies.drop("worker", 1)
    assert copies.reasons("worker") == {"kind_of_socket": 1}
    copies.take_all("worker")
    assert (copies.reasons("worker"), copies.reasons("another")) == ({}, {"ledger_full": 1})


def test_a_copy_is_closed_once_its_connection_has_ended_or_left() -> None:
    one, other = socket.socketpair()
    copies = Copies()
    copies.keep("worker", 1, Copy([], [], [one.detach()]))
    copies.note_noted("worker", 1)
    copies.drop("another", 1)
    assert (copies.count("worker"), copies.count("another")) == (1, 0)
    copies.drop("worker", 1)
    assert copies.count("worker") == 0
    assert other.recv(1) == b""
    assert copies.take_all("worker") == {}
    other.close()


def test_copies_that_come_together_are_kept_as_far_as_there_is_room() -> None:
    """One that comes anew takes the place of the former one."""
    pairs = [socket.socketpair() for _ in range(5)]
    made = [Copy([], [], [one.detach()]) for one, _ in pairs]
    copies = Copies(lambda: 3)
    copies.keep_all("worker", {1: made[0], 2: made[1]})
    copies.keep_all("worker", {2: made[2], 3: made[3], 4: made[4]})
    assert copies.count("worker") == 3
    assert copies.reasons("worker") == {"descriptors": 1}
    assert [number for number in (1, 4) if pairs[number][1].recv(1) == b""] == [1, 4]
    copies.drop_all("worker", [1, 2, 3, 4, 5])
    assert copies.count("worker") == 0
    assert copies.reasons("worker") == {}
    for _, ours in pairs:
        assert ours.recv(1) == b""
        ours.close()


def test_a_number_that_comes_twice_leaves_no_descriptor_open(rig: Rig) -> None:
    """A worker may be out of its mind."""
    worker = rig.add(ready())
    worker.copies, theirs = channel_pair()
    pairs = [socket.socketpair() for _ in range(2)]
    theirs.send(Keep(1, [[1, [], []], [1, [], []]]), [one.fileno() for one, _ in pairs])
    for one, _ in pairs:
        one.close()
    rig.says(worker, Collect())
    for _, ours in pairs:
        assert ours.recv(1) == b""
        ours.close()
    worker.copies.close()
    theirs.close()
