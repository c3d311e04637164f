"""Lines for a reader who may not read: nobody waits, what does not fit is counted, nothing that is shared changes."""

from __future__ import annotations

import errno
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Callable

import pytest

from rpccluster.log import outlet as module
from rpccluster.log.outlet import MOST_BYTES, Outlet, own_description, write_now

LINE = b"x" * 999 + b"\n"


def notice(count: int, reason: str) -> bytes:
    """A made-up one."""
    return f"{count} lost: {reason}\n".encode()


def read_all(descriptor: int) -> bytes:
    """What is there to be read, without waiting."""
    os.set_blocking(descriptor, False)
    data = b""
    try:
        while more := os.read(descriptor, 1 << 20):
            data += more
    except BlockingIOError:
        pass
    return data


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """One whose ends wait, as a shell makes it."""
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def test_what_has_no_room_waits_and_comes_in_order(pipe: tuple[int, int]) -> None:
    """A full pipe keeps nobody; when it has been read the rest follows."""
    read_end, write_end = pipe
    lines = [b"%03d " % number + LINE for number in range(200)]
    out = Outlet(write_end, notice)
    for line in lines:
        out.write(line)
    shown = b""
    while more := read_all(read_end):
        shown += more
        out.flush()
    assert shown == b"".join(lines)


def test_what_is_too_much_is_dropped_and_counted(pipe: tuple[int, int]) -> None:
    """The buffer has an end; when all of it is written one line tells how many are missing."""
    read_end, write_end = pipe
    out = Outlet(write_end, notice)
    for _ in range(1000):
        out.write(LINE)
    shown = b""
    while more := read_all(read_end):
        shown += more
        out.flush()
    *lines, last = shown.splitlines(keepends=True)
    assert lines == [LINE] * len(lines)
    assert MOST_BYTES // len(LINE) <= len(lines) < 1000
    assert last == notice(1000 - len(lines), "its reader takes none")
    out.write(b"next\n")
    assert read_all(read_end) == b"next\n"


def test_lines_that_fail_are_counted_too(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    """A full disk: when it takes lines again it is told."""
    read_end, write_end = pipe
    out = Outlet(write_end, notice)

    def fail(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_now", fail)
    out.write(LINE)
    out.write(LINE)
    monkeypatch.undo()
    out.write(b"again\n")
    assert read_all(read_end) == b"again\n" + notice(2, "No space left on device")


def test_the_last_lines_are_given_a_moment(pipe: tuple[int, int]) -> None:
    """A reader that is slow gets them, one that has stopped ends the wait."""
    read_end, write_end = pipe
    out = Outlet(write_end, notice)
    for _ in range(100):
        out.write(LINE)
    out.drain(0.05)
    shown = read_all(read_end)
    out.drain(60.0)
    assert shown + read_all(read_end) == LINE * 100


@pytest.mark.parametrize("is_flushed_first", [False, True])
def test_a_forked_child_does_not_say_it_again(is_flushed_first: bool, pipe: tuple[int, int]) -> None:
    """What waited at the fork is the parent's to write, whatever the child does first."""
    read_end, write_end = pipe
    out = Outlet(write_end, notice)
    for _ in range(100):
        out.write(LINE)
    read_all(read_end)
    if os.fork() == 0:
        if is_flushed_first:
            out.drain(0.0)
        out.write(b"child\n")
        os._exit(0)
    os.wait()
    assert read_all(read_end) == b"child\n"
    out.flush()
    assert read_all(read_end).count(LINE) > 0


def fill(write: Callable[[bytes], int]) -> None:
    """Until there is no room."""
    with pytest.raises(BlockingIOError):
        while True:
            assert write(b"x" * 4096) > 0


def lacking(*args: object) -> int:
    raise OSError(errno.EOPNOTSUPP, "an older kernel")


@pytest.mark.parametrize("is_old_kernel", [False, True])
def test_no_kind_of_descriptor_is_waited_for(
    is_old_kernel: bool, monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    """Not those either of which no description of our own can be had; and they stay as they are."""
    if is_old_kernel:
        monkeypatch.setattr(os, "pwritev", lacking, raising=False)
    ours, theirs = socket.socketpair()
    master, terminal = pty.openpty()
    try:
        for descriptor in (pipe[1], ours.fileno(), terminal):
            fill(lambda data, descriptor=descriptor: write_now(descriptor, data))  # type: ignore[misc]
            assert os.get_blocking(descriptor)
    finally:
        ours.close()
        theirs.close()
        os.close(master)
        os.close(terminal)


def test_our_own_description_changes_nobody_elses(pipe: tuple[int, int]) -> None:
    """It does not wait; that of the shell, and of all who write there, does as before."""
    master, terminal = pty.openpty()
    for descriptor in (pipe[1], terminal):
        own = own_description(descriptor)
        assert own != descriptor
        assert (os.get_blocking(own), os.get_blocking(descriptor)) == (False, True)
        assert not os.get_inheritable(own)
        fill(lambda data, own=own: os.write(own, data))  # type: ignore[misc]
        os.close(own)
    os.close(master)
    os.close(terminal)


def test_a_file_or_a_device_stays_what_it_is() -> None:
    """A second description of a file would have a place of its own in it."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    assert own_description(descriptor) == descriptor
    os.close(descriptor)
    assert own_description(descriptor) == descriptor


def test_a_terminal_of_another_user_is_opened_as_the_sessions() -> None:
    """After su(1) it cannot be opened by its own name."""
    program = (
        "import os, fcntl, termios, pty\n"
        "from rpccluster.log import outlet\n"
        "os.setsid(); master, terminal = pty.openpty()\n"
        "fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)\n"
        "stranger = pty.openpty()[1]\n"
        "real_open = os.open\n"
        "def refuse(path, flags):\n"
        "    if path.startswith('/proc'): raise PermissionError\n"
        "    return real_open(path, flags)\n"
        "os.open = refuse\n"
        "own = outlet.own_description(terminal)\n"
        "assert own != terminal and not os.get_blocking(own)\n"
        "os.write(own, b'x'); assert os.read(master, 1) == b'x'\n"
        "assert outlet.own_description(stranger) == stranger\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
