"""What an old master leaves to a new one: written to the environment, read back with more or less in it, or refused."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from descriptors import descriptors_left

from rpccluster.address import TCPAddress
from rpccluster.errors import StartError
from rpccluster.ipc.channel import channel_pair
from rpccluster.ipc.fdpass import memory_file, read_memory_file
from rpccluster.ipc.messages import PROTOCOL, Go, Serving
from rpccluster.live_settings import Given
from rpccluster.master.history import History, Version
from rpccluster.master.parts import Parts
from rpccluster.master.resources.listeners import Listener, open_control_listener
from rpccluster.master.resources.pidfile import Pidfile
from rpccluster.master.upgrade.inherited import (
    VARIABLE,
    Inheritance,
    LeftSettings,
    Thing,
    leave,
    left_settings,
    things,
)
from rpccluster.master.upgrade.starting import CommandLine
from rpccluster.system import Activation, PassedDescriptor

from ..made_up import cluster

#: What a build that knows no list leaves: all of its keys, with nothing in them.
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


HISTORY = History().with_version(
    Version(4, "2026-01-02T03:04:05Z", None, "HUP", {"settings.price": ("2", "3")}), {"settings.price": "3"}
)
SETTINGS = LeftSettings(Given(4, {"price": "3"}, {"price": "config set"}), HISTORY, {"call_timeout": "2"})


class OldMaster:
    """What an old master holds, and leaves as copies, since the new one is this process, too."""

    def __init__(self, folder: Path, at_the_end: ExitStack) -> None:
        self.at_the_end = at_the_end
        self.channel, theirs = channel_pair()
        tcp = at_the_end.enter_context(socket.socket())
        tcp.bind(("127.0.0.1", 0))
        self.listener = Listener(TCPAddress("127.0.0.1", 0), TCPAddress(*tcp.getsockname()), tcp)
        other = at_the_end.enter_context(socket.socket())
        other.bind(("127.0.0.1", 0))
        self.other = Listener(TCPAddress("127.0.0.1", 0), TCPAddress(*other.getsockname()), other)
        self.control = open_control_listener(f"{folder}/control")
        self.pidfile = Pidfile.acquire(f"{folder}/x.pid")
        passed = at_the_end.enter_context(socket.socket())
        self.activation = Activation((PassedDescriptor("web", passed.fileno()),), watchdog_seconds=9.0)
        at_the_end.callback(self.control.close, is_last=True)
        for each in (self.channel, theirs, self.pidfile):
            at_the_end.callback(each.close)
        memory = memory_file(b"journal")
        at_the_end.callback(os.close, memory)
        held = [
            *things(
                6,
                70,
                [self.listener],
                self.control,
                self.pidfile,
                self.activation,
                {"plugin:x": [self.other]},
                {"plugin:x": "by hand", "plugin:y": ""},
                {"dispatcher": memory},
            ),
            Thing("channel", None, theirs.fileno()),
            at_the_end.enter_context(left_settings(SETTINGS)),
        ]
        self.left = [Thing(each.name, each.value, self.copy(each.descriptor)) for each in held]

    def copy(self, descriptor: int | None) -> int | None:
        return None if descriptor is None else os.dup(descriptor)

    def leaves(self, more: tuple[Thing, ...] = (), without: str = "") -> dict[str, Any]:
        """What a build that knows the list writes, and no key for another."""
        return {"things": [asdict(each) for each in (*self.left, *more) if each.name != without]}

    def is_held_by(self, new: Inheritance) -> None:
        """The new master has each thing, and closes it when the test ends."""
        (listener,) = new.listeners
        assert new.settings in (SETTINGS, None)
        assert (listener.wanted, listener.actual) == (self.listener.wanted, self.listener.actual)
        assert new.control is not None
        assert (new.control.wanted, new.control.mark) == (self.control.wanted, self.control.mark)
        assert new.pidfile is not None
        assert new.pidfile.path == self.pidfile.path
        kept = [each for each in self.left if each.name != "settings"]  # which are read and closed
        descriptors = [each.descriptor for each in kept if each.descriptor is not None]
        assert not any(os.get_inheritable(each) for each in descriptors)
        new.channel.send(Serving(5))
        self.channel.send(Go())
        assert [message for message, _ in self.channel.receive()] == [Serving(5)]
        assert [message for message, _ in new.channel.receive()] == [Go()]
        self.close(new)

    def close(self, new: Inheritance) -> None:
        for listener in (*new.listeners, *new.plugin_listeners.get("plugin:x", []), new.control):
            if listener is not None:
                self.at_the_end.callback(listener.close, is_last=False)
        for closable in (new.channel, new.pidfile):
            if closable is not None:
                self.at_the_end.callback(closable.close)
        for memory in new.memories.values():
            self.at_the_end.callback(os.close, memory)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OldMaster]:
    monkeypatch.delenv(VARIABLE, raising=False)
    with ExitStack() as at_the_end:
        yield OldMaster(tmp_path, at_the_end)


def test_a_plain_start_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, no upgrade."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Inheritance.from_environment() is None


def test_what_is_left_is_inherited(old: OldMaster) -> None:
    """Channel, generation, listeners, control socket, pidfile, what systemd gave; the next exec gets nothing."""
    leave(old.left)
    assert all(os.get_inheritable(each.descriptor) for each in old.left if each.descriptor is not None)
    new = Inheritance.from_environment()
    assert new is not None
    assert (new.generation, new.first_serial, new.protocol) == (6, 10_070, PROTOCOL)
    assert [each.name for each in new.activation.descriptors] == ["web"]
    assert new.activation.watchdog_seconds == 9.0
    assert new.stopped == {"plugin:x": "by hand", "plugin:y": ""}
    assert [(name, each.actual) for name, (each,) in new.plugin_listeners.items()] == [("plugin:x", old.other.actual)]
    assert new.settings == SETTINGS
    assert {kind: read_memory_file(left, closes=False) for kind, left in new.memories.items()} == {
        "dispatcher": b"journal"
    }
    old.is_held_by(new)


def test_a_later_version_may_leave_more(old: OldMaster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor is closed; a field more of what is known is left alone."""
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    told = old.leaves(more=(Thing("beacon", {"any": "thing"}, read_end), Thing("motto", "onwards")))
    told["things"][0]["since"] = 3
    new = inherit(monkeypatch, {**told, "and": "more"})
    assert new is not None
    with pytest.raises(BrokenPipeError):
        os.write(write_end, b"x")
    os.close(write_end)
    old.is_held_by(new)


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ("protocol", 1),
        ("generation", 1),
        ("listener", []),
        ("control", None),
        ("pidfile", None),
        ("passed", []),
        ("watchdog_seconds", 0.0),
    ],
)
def test_what_is_missing_has_a_default(
    old: OldMaster, monkeypatch: pytest.MonkeyPatch, without: str, expected: Any
) -> None:
    """The start goes on with it: a listener or a pidfile that the old master holds refuses to be opened anew."""
    new = inherit(monkeypatch, old.leaves(without=without))
    assert new is not None
    assert getattr(new, "listeners" if without == "listener" else without) == expected
    old.close(new)


@pytest.mark.parametrize("without", ["channel", "first_serial"])
def test_without_some_there_is_no_upgrade(old: OldMaster, monkeypatch: pytest.MonkeyPatch, without: str) -> None:
    """Nobody to say `Go`, or serials that may be another's: the new master ends, and the old one serves on."""
    with pytest.raises(StartError, match=f"found no {without}, expected one"):
        inherit(monkeypatch, old.leaves(without=without))


def test_a_build_that_knows_no_list_leaves_fixed_keys(old: OldMaster, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade from it inherits everything."""
    channel, (tcp,), control, pidfile = (
        next(each for each in old.left if each.name == "channel"),
        [each for each in old.left if each.name == "listener"],
        next(each for each in old.left if each.name == "control"),
        next(each for each in old.left if each.name == "pidfile"),
    )
    told = {
        "channel": channel.descriptor,
        "generation": 6,
        "first_serial": 70,
        "listeners": [("tcp://127.0.0.1:0", tcp.descriptor)],
        "control": (str(old.control.wanted), control.descriptor),
        "pidfile": (old.pidfile.path, pidfile.descriptor),
        "marks": {str(old.control.wanted): old.control.mark},
    }
    new = inherit(monkeypatch, told)
    assert new is not None
    assert (new.generation, new.first_serial, new.protocol) == (6, 70, 1)
    old.is_held_by(new)


def test_a_build_that_knows_no_list_finds_its_keys(old: OldMaster) -> None:
    """A downgrade to it inherits everything."""
    leave(old.left)
    told = json.loads(os.environ.pop(VARIABLE))
    by_name = {each.name: each.descriptor for each in old.left}
    assert {key: value for key, value in told.items() if key != "things"} == {
        "channel": by_name["channel"],
        "protocol": PROTOCOL,
        "generation": 6,
        "first_serial": 10_070,
        "listeners": [["tcp://127.0.0.1:0", by_name["listener"]]],
        "control": [str(old.control.wanted), by_name["control"]],
        "pidfile": [old.pidfile.path, by_name["pidfile"]],
        "marks": {"tcp://127.0.0.1:0": None, str(old.control.wanted): list(old.control.mark or ())},
    }
    for descriptor in by_name.values():
        if descriptor is not None:
            os.close(descriptor)


def test_the_variable_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's own children must not take themselves for a new master."""
    _, tnews = channel_pair()
    told = {**NOTHING, "channel": os.dup(tnews.fileno())}
    new = inherit(monkeypatch, told)
    assert VARIABLE not in os.environ
    assert new is not None
    assert (new.listeners, new.control, new.pidfile) == ([], None, None)
    new.channel.close()
    tnews.close()


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
        {"things": None},
        {"things": []},
        {"things": [5]},
        {"things": [{"value": 5}]},
        {"things": [{"name": "channel"}]},
        {"things": [{"name": "channel", "descriptor": 1_000_000}]},
        {"things": [{"name": "first_serial", "value": "x"}]},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_a_fault(monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    """Exit code 1 and one message, never a traceback."""
    with pytest.raises(StartError, match=f"^cannot use {VARIABLE}, which an old master has set") as raised:
        inherit(monkeypatch, told)
    assert raised.value.exit_code == 1


@pytest.mark.parametrize(
    "change",
    [
        {"generation": None, "listeners": None},
        {"listeners": [("nonsense", "a descriptor")]},
        {"listeners": [(5, "a descriptor")]},
        {"listeners": [("tcp://h:1",)]},
        {"listeners": [("tcp://h:1", 1_000_000)]},
        {"control": ("unix://relative", "a descriptor")},
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
        text = json.dumps(told).replace('"a descriptor"', str(other.fileno()))
        with pytest.raises(StartError, match="which an old master has set"):
            inherit(monkeypatch, json.loads(text))


def test_a_program_that_cannot_be_had_is_an_oserror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is gone: the old master goes on. A folder that is gone is none of its affairs."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(OSError, match="No such file"):
        CommandLine([], str(tmp_path / "gone"), str(tmp_path / "python")).exec()


def test_an_upgrade_that_cannot_leave_the_settings_does_not_begin(caplog: pytest.LogCaptureFixture) -> None:
    """Their file in memory needs a descriptor: that there is none is told, and raises nothing."""
    parts: Any = SimpleNamespace(cluster=cluster(), _prepared=nullcontext)
    with descriptors_left(0):
        assert Parts._start_new_master(parts) is None
    assert "Cannot start a new master" in caplog.text
