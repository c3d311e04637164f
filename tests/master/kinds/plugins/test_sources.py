"""What the master reads of a plugin's process: its output, in pieces, and a command's notices."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from rpccluster.log.splitter import CUT
from rpccluster.master.kinds.plugins.sources import Notices, OutputPipe


@pytest.fixture
def pipe() -> Iterator[OutputPipe]:
    made = OutputPipe()
    yield made
    made.close()


def test_output_is_read_line_by_line(pipe: OutputPipe) -> None:
    """A line that has not ended waits; at end-of-file it counts."""
    assert pipe.read() == []
    os.write(pipe.far_end, b"one\ntw")
    assert pipe.read() == ["one"]
    os.write(pipe.far_end, b"o\nthree")
    assert pipe.read() == ["two"]
    pipe.let_go()
    assert (pipe.read(), pipe.is_closed) == (["three"], True)


def test_a_turn_reads_a_bounded_piece(pipe: OutputPipe) -> None:
    """However much there is."""
    os.write(pipe.far_end, b"x\n" * 30_000)
    assert 0 < len(pipe.read()) <= 4096
    assert len(pipe.read_rest()) > 20_000


def test_the_rest_is_read_at_the_end_and_no_more_than_some_of_it(pipe: OutputPipe) -> None:
    """Another process may hold the pipe, and write on."""
    os.write(pipe.far_end, b"last")
    assert pipe.read_rest() == ["last"]
    assert not pipe.is_closed
    os.write(pipe.far_end, b"y" * 40_000)
    (line,) = pipe.read_rest()
    assert line.endswith(CUT)


def told(address: str, text: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text, address.replace("@", "\0", 1))


def test_notices_come_line_by_line() -> None:
    """As sd_notify(3) sends them; each process has an address of its own."""
    mine, other = Notices({os.geteuid()}), Notices({os.geteuid()})
    assert mine.address != other.address
    told(mine.address, b"READY=1\nSTATUS=well\xff")
    told(mine.address, b"WATCHDOG=1\n")
    assert mine.read() == ["READY=1", "STATUS=well�", "WATCHDOG=1"]
    assert mine.read() == other.read() == []
    mine.close()
    other.close()


def test_a_stranger_tells_nothing() -> None:
    """Any user can send to an abstract address."""
    mine = Notices({os.geteuid() + 1})
    told(mine.address, b"READY=1")
    assert mine.read() == []
    mine.close()
