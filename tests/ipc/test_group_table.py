"""The table of process groups: what the master writes there is what a warden reads, and nobody else has it."""

from __future__ import annotations

import faulthandler
import mmap
import os

import pytest

from rpccluster.ipc.group_table import GroupTable, LedGroup


def test_a_group_stands_there_until_it_is_cleared() -> None:
    """However many there are, in whatever row."""
    table = GroupTable()
    table.enter(0, LedGroup(17, 5))
    table.enter(1535, LedGroup(18, 6))
    assert table.groups() == [LedGroup(17, 5), LedGroup(18, 6)]
    table.clear(0)
    assert table.groups() == [LedGroup(18, 6)]


def test_no_two_children_have_one_mark() -> None:
    """Neither of one master nor of two."""
    one, other = GroupTable(), GroupTable()
    assert len({one.mark(1), one.mark(2), other.mark(1)}) == 3
    assert one.mark(1).startswith(f"{one.token}.")


def seen_by_a_fork(table: GroupTable) -> int:
    """The exit status of a fork that waits for the parent to write: the number of groups that it reads."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()
        os.read(read_end, 1)
        os._exit(len(table.groups()))
    table.enter(3, LedGroup(17, 5))
    os.write(write_end, b".")
    os.close(write_end)
    os.close(read_end)
    return os.waitpid(pid, 0)[1]


def test_a_warden_reads_what_is_written_after_its_fork() -> None:
    """It is forked when there is no child yet."""
    table = GroupTable()
    with table.shared():
        assert os.WEXITSTATUS(seen_by_a_fork(table)) == 1


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTFORK"), reason="PyPy cannot keep memory from a fork")
def test_a_child_has_no_copy() -> None:
    """The kernel ends one that reads where the table would be."""
    table = GroupTable()
    assert os.WIFSIGNALED(seen_by_a_fork(table))
