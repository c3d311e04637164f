"""What one master owns: what it leaves behind at its end, and what of an old master's it touches before its time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rpccluster.address import UnixAddress
from rpccluster.master.resources.listeners import Listener, open_control_listener
from rpccluster.master.resources.ownership import Owned, Ownership
from rpccluster.master.resources.pidfile import Pidfile

PID = 4711


class MadeUpControl:
    """A control socket that nobody serves."""

    def __init__(self, listener: Listener | None) -> None:
        self.listener = listener

    def listen_anew(self, listener: Listener) -> None:
        assert self.listener is not None
        self.listener.become(listener)

    def stop_listening(self, *, is_last: bool) -> None:
        if self.listener is not None:
            self.listener.close(is_last=is_last)


class Rig:
    """A master that has a listener, a control socket and a pidfile; an old one may have left others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.at_the_end = ExitStack()
        self.listeners = [self.listener("service")]
        self.control = MadeUpControl(self.listener("control"))
        self.pidfile = self.lock("pid")

    def listener(self, name: str) -> Listener:
        made = open_control_listener(f"{self.folder}/{name}")
        self.at_the_end.callback(made.close, is_last=False)
        return made

    def lock(self, name: str) -> Pidfile:
        pidfile = Pidfile.acquire(f"{self.folder}/{name}")
        pidfile.write(1)
        return pidfile

    def ownership(self, *inherited: Owned) -> Ownership:
        return Ownership(self.pidfile, self.control, self.listeners, inherited)

    def found(self) -> dict[str, str]:
        """The files that are there, and what pidfiles name."""
        pids = {each.name: each.read_text().strip() for each in self.folder.iterdir() if each.is_file()}
        return {each.name: pids.get(each.name, "socket") for each in sorted(self.folder.iterdir())}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    with made.at_the_end:
        yield made


def test_an_end_leaves_no_path_and_no_pid(rig: Rig) -> None:
    """The file of the pid stays, for its lock, with nothing in it."""
    rig.ownership().give_back()
    assert rig.found() == {"pid": ""}


def test_who_left_touches_nothing(rig: Rig) -> None:
    """All is the new master's: its paths stay, and its pid."""
    ownership = rig.ownership()
    ownership.leave()
    ownership.give_back()
    assert rig.found() == {"control": "socket", "pid": "1", "service": "socket"}
    assert (rig.listeners, ownership.pidfile) == ([], None)


def test_an_upgrade_that_fails_takes_only_what_it_has_opened_itself(rig: Rig) -> None:
    """What is the old master's stays, whether this one uses it or not."""
    assert rig.control.listener is not None
    others = [rig.listener("old"), rig.lock("old.pid")]
    ownership = rig.ownership(rig.control.listener, *others)
    ownership.give_back()
    assert rig.found() == {"control": "socket", "old": "socket", "old.pid": "1", "pid": ""}


def test_who_takes_over_clears_away_what_nobody_names_any_more(rig: Rig) -> None:
    """It keeps the rest, and signs the pidfile."""
    ownership = rig.ownership(*rig.listeners, rig.listener("old"), rig.pidfile, rig.lock("old.pid"))
    ownership.take_over(PID)
    assert rig.found() == {"control": "socket", "old.pid": "", "pid": str(PID), "service": "socket"}
    ownership.give_back()
    assert rig.found() == {"old.pid": "", "pid": ""}


def test_a_control_socket_whose_path_was_removed_is_bound_again(rig: Rig) -> None:
    """At the same path, by the same listener."""
    listener = rig.control.listener
    assert listener is not None and isinstance(listener.wanted, UnixAddress)
    Path(listener.wanted.path).unlink()
    assert not listener.is_there()
    rig.ownership().bind_control_again(is_private=False)
    assert rig.control.listener is listener
    assert listener.is_there()


def test_without_a_control_socket_and_a_pidfile(rig: Rig) -> None:
    """Neither need be configured."""
    ownership = Ownership(None, MadeUpControl(None), rig.listeners)
    ownership.take_over(PID)
    ownership.give_back()
    assert rig.found() == {"control": "socket", "pid": "1"}
