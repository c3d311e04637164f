"""What systemd is told: each state at its time, in order, and again until there was room for it."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import pytest

from rpccluster import system
from rpccluster.master.notices import Notices

READY = "READY=1\nMAINPID=7\nSTATUS=Serving"


class Systemd:
    """Hears what it is told, if it has room."""

    def __init__(self) -> None:
        self.has_room = True
        self.heard: list[str] = []

    def hear(self, state: str) -> bool:
        if self.has_room:
            self.heard.append(state)
        return self.has_room

    def take(self) -> list[str]:
        heard, self.heard = self.heard, []
        return heard


@pytest.fixture
def systemd() -> Systemd:
    return Systemd()


def serving(systemd: Systemd, watchdog_seconds: float = 0.0) -> Notices:
    """The notices of a master that has served since 100.0."""
    notices = Notices(watchdog_seconds, systemd.hear)
    notices.tell_ready(7, "Serving", 100.0)
    assert systemd.take() == [READY]
    return notices


def test_a_master_does_not_end_before_it_has_told_who_is_the_main_process(systemd: Systemd) -> None:
    """It waits for room, and not for ever."""
    notices = serving(systemd)
    systemd.has_room = False
    notices.leave_to(8)
    notices.drain(0.05)
    assert (systemd.heard, notices.is_waiting) == ([], True)
    systemd.has_room = True
    notices.drain()
    assert (systemd.heard, notices.is_waiting) == (["MAINPID=8"], False)


def test_what_finds_no_room_is_told_again(systemd: Systemd) -> None:
    """And what comes later waits behind it."""
    notices = Notices(send=systemd.hear)
    systemd.has_room = False
    notices.tell_ready(7, "Serving", 100.0)
    notices.tell_stopping()
    notices.turn(100.0)
    assert (systemd.heard, notices.is_waiting) == ([], True)
    systemd.has_room = True
    notices.turn(100.0)
    notices.turn(100.0)
    assert (systemd.heard, notices.is_waiting) == ([READY, "STOPPING=1\nSTATUS=Stopping"], False)


def test_ready_is_not_lost_when_the_queue_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's, as the kernel bounds it: unix(7), max_dgram_qlen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        sent = 0
        while system.notify_systemd("STATUS=busy"):
            sent += 1
        notices = Notices()
        notices.tell_ready(7, "Serving", 100.0)
        for _ in range(sent):
            assert systemd.recv(100) == b"STATUS=busy"
        notices.turn(100.0)
        assert systemd.recv(100) == READY.encode()


def test_a_reload_begins_and_ends(systemd: Systemd) -> None:
    """When it began in microseconds, by which systemd knows whether its own HUP is meant; how it went."""
    notices = serving(systemd)
    notices.follow_changes(1, "Serving", 5000.25, is_under_way=True)
    notices.follow_changes(1, "Serving", 5001.0, is_under_way=True)
    assert systemd.take() == ["RELOADING=1\nMONOTONIC_USEC=5000250000\nSTATUS=Reloading"]
    notices.follow_changes(1, "Reload failed: x.ini:3: a\nx.ini:4: b", 5002.0, is_under_way=False)
    notices.follow_changes(1, "Serving", 5003.0, is_under_way=False)
    assert systemd.take() == ["READY=1\nSTATUS=Reload failed: x.ini:3: a; x.ini:4: b"]


def test_a_refused_reload_begins_and_ends_at_once(systemd: Systemd) -> None:
    """Without an end systemd would wait until its own time is up."""
    notices = serving(systemd)
    notices.follow_changes(1, "Reload failed: no", 1.0, is_under_way=False)
    assert [told.split("\n")[0] for told in systemd.take()] == ["RELOADING=1", "READY=1"]


def test_of_reloads_that_overtake_each_other_one_end_is_told(systemd: Systemd) -> None:
    """The last one's; each has begun."""
    notices = serving(systemd)
    notices.follow_changes(1, "", 1.0, is_under_way=True)
    notices.follow_changes(2, "", 2.0, is_under_way=True)
    notices.follow_changes(2, "Serving", 3.0, is_under_way=False)
    assert [told.split("\n")[0] for told in systemd.take()] == ["RELOADING=1", "RELOADING=1", "READY=1"]


@pytest.mark.parametrize("when", ["before it serves", "while it stops", "after an upgrade"])
def test_only_a_serving_master_tells_of_reloads(systemd: Systemd, when: str) -> None:
    """READY=1 would end the start, or come after the end."""
    notices = Notices(send=systemd.hear)
    if when == "while it stops":
        notices = serving(systemd)
        notices.tell_stopping()
    if when == "after an upgrade":
        notices = serving(systemd)
        notices.leave_to(8)
    systemd.take()
    notices.follow_changes(1, "Reload failed: no", 1.0, is_under_way=False)
    assert systemd.heard == []


def test_a_reload_that_a_stop_ends_is_not_told_of(systemd: Systemd) -> None:
    """The last thing that systemd hears is that it stops."""
    notices = serving(systemd)
    notices.follow_changes(1, "", 1.0, is_under_way=True)
    notices.tell_stopping()
    notices.follow_changes(1, "Reload failed: overtaken", 2.0, is_under_way=False)
    assert systemd.heard[-1].startswith("STOPPING=1")


def test_it_barks_twice_in_the_watchdogs_time(systemd: Systemd) -> None:
    """From when it serves to its end; not where something else waits, which is a sign of life, too."""
    notices = Notices(10.0, systemd.hear)
    assert notices.wake_at == math.inf
    notices = serving(systemd, 10.0)
    assert notices.wake_at == 105.0
    notices.turn(104.9)
    assert systemd.take() == []
    notices.turn(105.5)
    assert (systemd.take(), notices.wake_at) == (["WATCHDOG=1"], 110.5)
    systemd.has_room = False
    notices.tell_stopping()
    notices.turn(111.0)
    systemd.has_room = True
    notices.turn(115.0)
    assert systemd.take() == ["STOPPING=1\nSTATUS=Stopping"]
    notices.turn(116.0)
    assert systemd.take() == ["WATCHDOG=1"]


def test_after_an_upgrade_the_new_master_barks(systemd: Systemd) -> None:
    """The old one names it, and is silent; one that goes on names itself."""
    notices = serving(systemd, 10.0)
    notices.tell_main(7)
    notices.leave_to(8)
    assert (systemd.take(), notices.wake_at) == (["MAINPID=7", "MAINPID=8"], math.inf)


def test_without_a_watchdog_nobody_is_woken(systemd: Systemd) -> None:
    """An idle master sleeps."""
    assert serving(systemd).wake_at == math.inf
