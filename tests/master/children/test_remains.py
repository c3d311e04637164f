"""What ended children have left outside of their groups is killed, also if it comes a moment later."""

from __future__ import annotations

from collections.abc import Collection, Container

import pytest

from rpccluster.master.children.remains import LINGER_SECONDS, Remains
from rpccluster.system import System


class MadeUpSystem(System):
    """Processes are pids with marks; a killed one stays until ``forget``."""

    def __init__(self) -> None:
        self.marked: dict[int, str] = {}
        self.left_out: list[Collection[int]] = []

    def kill_marked(self, marks: Container[str], leave_out: Collection[int]) -> list[int]:
        self.left_out.append(leave_out)
        return [pid for pid, mark in self.marked.items() if mark in marks]


@pytest.fixture
def made_up() -> MadeUpSystem:
    return MadeUpSystem()


def test_without_a_death_nobody_looks(made_up: MadeUpSystem) -> None:
    """A look costs a system call for each process."""
    assert Remains(made_up).wake_at == float("inf")


def test_what_is_left_is_killed_and_told_once(made_up: MadeUpSystem, caplog: pytest.LogCaptureFixture) -> None:
    """At the death, for the mark of the dead alone."""
    caplog.set_level("INFO")
    remains = Remains(made_up)
    made_up.marked = {7: "m.1", 8: "m.1", 9: "m.2"}
    remains.expect("m.1", "plugin x", 10.0)
    remains.look(10.0, [20])
    assert made_up.left_out == [[20]]
    made_up.marked = {9: "m.2"}
    remains.look(10.0 + LINGER_SECONDS, [20])
    assert remains.wake_at == float("inf")
    assert [record.message for record in caplog.records] == [
        "Killed what plugin x had left outside of its process group: 2 processes"
    ]


def test_what_comes_later_is_found_and_gives_it_more_time(made_up: MadeUpSystem) -> None:
    """A process that was just dying has started another one."""
    remains = Remains(made_up)
    remains.expect("m.1", "plugin x", 10.0)
    remains.look(10.0, [])
    assert remains.wake_at == 10.0 + LINGER_SECONDS
    made_up.marked = {7: "m.1"}
    remains.look(10.4, [])
    assert remains.wake_at == 10.4 + LINGER_SECONDS


def test_what_cannot_be_killed_keeps_nobody_looking(made_up: MadeUpSystem) -> None:
    """It waits for a disk, for example."""
    remains = Remains(made_up)
    made_up.marked = {7: "m.1"}
    remains.expect("m.1", "plugin x", 10.0)
    remains.look(10.0, [])
    remains.look(10.0 + LINGER_SECONDS, [])
    assert remains.wake_at == float("inf")
