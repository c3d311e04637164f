"""What systemd is told: in its order, and again until there was room for it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rpccluster import system
from rpccluster.master.notices import Notices


def test_what_finds_no_room_is_told_again() -> None:
    """And what comes later waits behind it."""
    room, heard = [False], []

    def send(state: str) -> bool:
        if room[0]:
            heard.append(state)
        return room[0]

    notices = Notices(send)
    notices.tell("READY=1")
    notices.tell("STOPPING=1")
    notices.turn()
    assert (heard, notices.is_waiting) == ([], True)
    room[0] = True
    notices.turn()
    notices.turn()
    assert (heard, notices.is_waiting) == (["READY=1", "STOPPING=1"], False)


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
        notices.tell("READY=1")
        for _ in range(sent):
            assert systemd.recv(100) == b"STATUS=busy"
        notices.turn()
        assert systemd.recv(100) == b"READY=1"
