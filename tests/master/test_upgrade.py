"""What an old master leaves to a new one: written to the environment, read back, or refused."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from rpccluster.address import TCPAddress, UnixAddress
from rpccluster.errors import StartError
from rpccluster.ipc.channel import channel_pair
from rpccluster.ipc.messages import Go, Serving
from rpccluster.master.changes.inherited import VARIABLE, CommandLine, Inheritance
from rpccluster.master.resources.pidfile import Pidfile

NOTHING: dict[str, Any] = {
    "channel": 0,
    "generation": 1,
    "first_serial": 1,
    "listeners": [],
    "control": None,
    "pidfile": None,
}


def inherit(monkeypatch: pytest.MonkeyPatch, told: Any) -> Inheritance | None:
    monkeypatch.setenv(VARIABLE, told if isinstance(told, str) else json.dumps(told))
    return Inheritance.from_environment()


def test_a_plain_start_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, no upgrade."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Inheritance.from_environment() is None


def test_everything_is_taken_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Channel, generation, listeners, control socket, pidfile; nothing of it reaches the next exec."""
    ours, theirs = channel_pair()
    pidfile = Pidfile.acquire(str(tmp_path / "x.pid"))
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(tmp_path / "control"))
        copies = [os.dup(each) for each in (theirs.fileno(), tcp.fileno(), unix.fileno(), pidfile.descriptor)]
        for copy in copies:
            os.set_inheritable(copy, True)
        told = {
            "channel": copies[0],
            "generation": 6,
            "first_serial": 70,
            "listeners": [("tcp://127.0.0.1:0", copies[1])],
            "control": (f"unix://{tmp_path}/control", copies[2]),
            "pidfile": (pidfile.path, copies[3]),
        }
        heir = inherit(monkeypatch, told)
        assert heir is not None
        assert (heir.generation, heir.first_serial) == (6, 70)
        (listener,) = heir.listeners
        assert listener.wanted == TCPAddress("127.0.0.1", 0)
        assert listener.actual == TCPAddress(*tcp.getsockname())
    assert heir.control is not None
    assert heir.control.wanted == UnixAddress(f"{tmp_path}/control")
    assert heir.pidfile is not None
    assert (heir.pidfile.path, heir.pidfile.descriptor) == (pidfile.path, copies[3])
    assert not any(os.get_inheritable(copy) for copy in copies)
    theirs.close()
    heir.channel.send(Serving(5))
    ours.send(Go())
    assert [message for message, _ in ours.receive()] == [Serving(5)]
    assert [message for message, _ in heir.channel.receive()] == [Go()]
    heir.pidfile.close()
    listener.close(is_last=False)
    heir.control.close(is_last=False)
    pidfile.close()
    for channel in (ours, heir.channel):
        channel.close()


def test_the_variable_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's own children must not take themselves for a new master."""
    _, theirs = channel_pair()
    told = {**NOTHING, "channel": os.dup(theirs.fileno())}
    heir = inherit(monkeypatch, told)
    assert VARIABLE not in os.environ
    assert heir is not None
    assert (heir.listeners, heir.control, heir.pidfile) == ([], None, None)
    heir.channel.close()
    theirs.close()


@pytest.mark.parametrize(
    "told",
    [
        "",
        "rubbish",
        "5",
        "null",
        "[]",
        "{}",
        {**NOTHING, "channel": 1_000_000},
        {**NOTHING, "channel": "x"},
        {**NOTHING, "channel": None},
        {"channel": 1_000_000},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_a_fault(monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    """Exit code 1 and one message, never a traceback."""
    with pytest.raises(StartError, match=f"^{VARIABLE} is not what an old master would have set") as raised:
        inherit(monkeypatch, told)
    assert raised.value.exit_code == 1


@pytest.mark.parametrize(
    "change",
    [
        {"generation": None, "listeners": None},
        {"listeners": [("nonsense", 0)]},
        {"listeners": [(5, 0)]},
        {"listeners": [("tcp://h:1",)]},
        {"listeners": [("tcp://h:1", 1_000_000)]},
        {"control": ("unix://relative", 0)},
        {"control": 5},
        {"pidfile": ("/x",)},
        {"pidfile": ("/x", 1_000_000)},
        {"pidfile": ("/x", "y")},
    ],
    ids=str,
)
def test_a_part_that_makes_no_sense_is_a_fault(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    """Whichever it is."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        told = {**NOTHING, "channel": os.dup(one.fileno()), **change}
        with pytest.raises(StartError, match="is not what an old master would have set"):
            inherit(monkeypatch, told)


def test_a_program_that_cannot_be_had_is_an_oserror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is gone: the old master goes on. A folder that is gone is none of its affairs."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(OSError, match="No such file"):
        CommandLine([], str(tmp_path / "gone"), str(tmp_path / "python")).exec()
