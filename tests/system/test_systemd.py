"""What systemd passes in the environment, and what it is told."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rpccluster import system
from rpccluster.system import Activation, PassedDescriptor

OURS = str(os.getpid())


@pytest.fixture
def _nothing_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment at first."""
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)


def take(monkeypatch: pytest.MonkeyPatch, **told: str) -> Activation:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    return Activation.take()


@pytest.mark.usefixtures("_nothing_passed")
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("web:api", ["web", "api"]),
        ("web:web", ["web", "web"]),
        ("a:b:c", ["a", "b"]),  # systemd-socket-activate warns, and passes them all
        ("web", ["web", "unknown"]),
        ("", ["unknown", "unknown"]),
    ],
)
def test_each_descriptor_has_its_name(monkeypatch: pytest.MonkeyPatch, names: str, expected: list[str]) -> None:
    """In their order; `unknown` without one, as sd_listen_fds_with_names(3) has it."""
    found = take(monkeypatch, LISTEN_PID=OURS, LISTEN_FDS="2", LISTEN_FDNAMES=names).descriptors
    assert found == tuple(PassedDescriptor(name, number) for number, name in enumerate(expected, 3))


@pytest.mark.usefixtures("_nothing_passed")
@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({}, "systemd has passed no socket (LISTEN_FDS is not set)"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, "found LISTEN_PID '1', expected {OURS}, this process: a shell "),
        ({"LISTEN_FDS": "1"}, "found LISTEN_PID '', expected {OURS}"),
        ({"LISTEN_FDS": "one", "LISTEN_PID": OURS}, "found LISTEN_FDS 'one', expected the number"),
        ({"LISTEN_FDS": "0", "LISTEN_PID": OURS}, "found LISTEN_FDS '0', expected the number"),
        ({"LISTEN_FDS": "9999999999", "LISTEN_PID": OURS}, "found LISTEN_FDS '9999999999', expected the number"),
    ],
)
def test_none_are_passed(monkeypatch: pytest.MonkeyPatch, told: dict[str, str], reason: str) -> None:
    """And it is known why: those of another process are not ours."""
    found = take(monkeypatch, **told)
    expected = reason.format(OURS=OURS)
    assert (found.descriptors, found.reason[: len(expected)]) == ((), expected)


@pytest.mark.usefixtures("_nothing_passed")
@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": OURS, "NOTIFY_SOCKET": "/x"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "NOTIFY_SOCKET": "/x"}, 3.0),  # sd_watchdog_enabled(3): any process's
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1", "NOTIFY_SOCKET": "/x"}, 0.0),
        ({"WATCHDOG_USEC": "often", "WATCHDOG_PID": OURS, "NOTIFY_SOCKET": "/x"}, 0.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": OURS}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdogs_time(monkeypatch: pytest.MonkeyPatch, told: dict[str, str], seconds: float) -> None:
    """In seconds, if it is for this process, and if there is a socket to bark at."""
    assert take(monkeypatch, **told).watchdog_seconds == seconds


@pytest.mark.usefixtures("_nothing_passed")
def test_nobody_else_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the environment nor among the descriptors after an exec; one that is not open is no error yet."""
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    monkeypatch.setattr("rpccluster.system.systemd._FIRST_DESCRIPTOR", read_end)
    os.close(write_end)
    assert len(take(monkeypatch, LISTEN_PID=OURS, LISTEN_FDS="2", LISTEN_FDNAMES="a").descriptors) == 2
    assert not os.get_inheritable(read_end)
    os.close(read_end)
    assert not {name for name in os.environ if name.startswith(("LISTEN_", "WATCHDOG_"))}


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool) -> None:
    """At the socket it named, a path or an abstract name: sd_notify(3)."""
    name = f"\0rpccluster-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        system.notify_systemd("READY=1\nMAINPID=5")
        systemd.settimeout(10)
        assert systemd.recv(100) == b"READY=1\nMAINPID=5"


def test_without_systemd_nobody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a socket that is gone an error."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    system.notify_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    system.notify_systemd("READY=1")
