"""Which connections of a dead worker go on, by the copies of their sockets and its ledger."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from rpccluster.ipc.messages import Give
from rpccluster.ledger.file import LedgerFile
from rpccluster.ledger.layout import BEGUN, CHECK, HEADER, INPUT_SHIFT, MASK, RECORD, Flag, Shape
from rpccluster.master.handover.copies import Copies, Copy, Suspects, revive
from rpccluster.system.stream_counters import COUNTS_STREAMS

pytestmark = pytest.mark.skipif(not COUNTS_STREAMS, reason="only Linux counts streams")

SHAPE = Shape.fitting(4, 8, 65_536)
NUMBER, SERIAL = 5 << 32 | 1, 5
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

    def note(self, input: bytes = b"", output: bytes = b"", lost: int = 0, flags: int = 0) -> None:
        """Let the last bytes that were read stand in the ledger, output behind what was written, and a begun call."""
        border, at = INPUT_SHIFT + 100 - len(input), SHAPE.arena_at
        os.pwrite(self.ledger.descriptor, input, at)
        os.pwrite(self.ledger.descriptor, output, at + 1000)
        fields = (NUMBER, NUMBER ^ CHECK, border, at - border, 10 + len(output), at + 1000 - 10, flags, 77)
        os.pwrite(self.ledger.descriptor, RECORD.pack(*(each & MASK for each in fields)), SHAPE.records_at)
        os.pwrite(self.ledger.descriptor, HEADER.pack(1, NUMBER), 0)
        os.pwrite(self.ledger.descriptor, BEGUN.pack(NUMBER if lost else 0, border, 0, lost, 0), SHAPE.begun_at)

    def revived(self, suspects: Suspects | None = None, given: Give | None = None) -> Give | None:
        copy = Copy(PEER, ["key:shop"], [os.dup(self.served.fileno())], given)
        found = list(revive({NUMBER: copy}, self.ledger, SERIAL, suspects))
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
    (found,) = revive({NUMBER: copy}, ledger, SERIAL, None)
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


def test_a_message_at_which_two_workers_crash_is_read_by_no_third(dead: Dead) -> None:
    suspects = Suspects()
    dead.note(b"abc")
    assert dead.revived(suspects) is not None
    assert dead.revived() is not None  # killed from outside
    assert dead.revived(suspects) is None


def test_a_crash_at_another_message_counts_anew(dead: Dead) -> None:
    suspects = Suspects()
    dead.note(b"abc")
    assert dead.revived(suspects) is not None
    dead.note(b"bc")
    assert dead.revived(suspects) is not None


def test_a_copy_is_closed_once_its_connection_has_ended_or_left() -> None:
    one, other = socket.socketpair()
    copies = Copies()
    copies.keep("worker", 1, Copy([], [], [one.detach()]))
    copies.note_noted("worker", 1, is_covered=True)
    copies.drop("another", 1)
    assert (copies.count("worker"), copies.count("another")) == (1, 0)
    copies.drop("worker", 1)
    assert copies.count("worker") == 0
    assert other.recv(1) == b""
    assert copies.take_all("worker") == {}
    other.close()
