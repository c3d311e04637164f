"""The list of named things that an old master passes to a new one, in the environment of the exec.

The old master writes it (`leave`), the new one reads it at its start (`Inheritance.from_environment`). The two may be
of different versions, so the list may grow: the reader closes the descriptor of a thing that it does not know, and
gives a missing thing its default. If an indispensable thing is missing, the new master ends with a `StartError` before
it has touched anything, and the old one serves on. `new_master` and `old_master` own the conversation that follows.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from rpccluster.address import PassedAddress, parse_bind
from rpccluster.config.changes.changing import commanded
from rpccluster.errors import StartError
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.fdpass import memory_file
from rpccluster.ipc.messages import PROTOCOL
from rpccluster.live_settings import Given
from rpccluster.master.cluster import Cluster
from rpccluster.master.history import History
from rpccluster.master.resources.listeners import Listener
from rpccluster.master.resources.ownership import Owned
from rpccluster.master.resources.pidfile import Pidfile
from rpccluster.master.resources.plugin_listeners import all_of
from rpccluster.system import Activation, PassedDescriptor

__all__ = ["LEAD", "VARIABLE", "Inheritance", "LeftSettings", "Thing", "leave", "left_settings", "things"]

VARIABLE = "RPCCLUSTER_UPGRADE"
LEAD = "lead"  # the memory of the page of the lead, which is no service's
SERIALS_LEFT_TO_US = 10_000  # serials for workers that the old master may still start before it ends


@dataclass(frozen=True)
class Thing:
    """One thing of the list. ``value`` is any JSON value. Several things may have the same name."""

    name: str
    value: Any = None
    descriptor: int | None = None


def things(
    generation: int,
    next_serial: int,
    listeners: Sequence[Listener],
    control: Listener | None,
    pidfile: Pidfile | None,
    activation: Activation,
    plugin_listeners: Mapping[str, Sequence[Listener]],
    stopped: Mapping[str, str],
    memories: Mapping[str, int],
) -> list[Thing]:
    """List everything that a new master inherits, except the channel to the old one. `_READERS` has every name.

    ``stopped`` says of each plugin why it is stopped; empty if it is not. ``memories`` are the files that outlive the
    processes of services, by their kinds.
    """
    return [
        Thing("protocol", PROTOCOL),
        Thing("generation", generation),
        Thing("first_serial", next_serial + SERIALS_LEFT_TO_US),
        *(_socket("listener", each) for each in listeners if not isinstance(each.wanted, PassedAddress)),
        *([_socket("control", control)] if control else []),
        *([Thing("pidfile", pidfile.path, pidfile.descriptor)] if pidfile else []),
        *(_of_plugin(header, each) for header, listeners in plugin_listeners.items() for each in listeners),
        *(Thing("plugin", {"header": header, "stopped": reason}) for header, reason in stopped.items()),
        *(Thing("memory", kind, descriptor) for kind, descriptor in memories.items()),
        *(Thing("passed", each.name, each.number) for each in activation.descriptors),
        Thing("watchdog_seconds", activation.watchdog_seconds),
    ]


class LeftSettings(NamedTuple):
    """The settings in force, the history of the versions, and the other values that commands have set, by name."""

    given: Given
    history: History = History()
    commanded: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def of(cls, cluster: Cluster) -> LeftSettings:
        """Return those of ``cluster``."""
        return cls(cluster.settings, cluster.history, commanded(cluster.configuration))


@contextlib.contextmanager
def left_settings(left: LeftSettings) -> Iterator[Thing]:
    """Make the thing that has ``left``: a file in memory, since it may be long."""
    given = left.given
    more = [json.dumps(left.history.told()), dict(left.commanded)]
    content = json.dumps([given.number, dict(given.texts), dict(given.places), *more])
    descriptor = memory_file(content.encode(), name="settings")
    try:
        yield Thing("settings", None, descriptor)
    finally:
        os.close(descriptor)


def _socket(name: str, listener: Listener) -> Thing:
    return Thing(name, {"address": str(listener.wanted), "mark": listener.mark}, listener.socket.fileno())


def _of_plugin(header: str, listener: Listener) -> Thing:
    thing = _socket("plugin_listener", listener)
    return replace(thing, value={**thing.value, "header": header})


def leave(inherited: Sequence[Thing]) -> None:
    """Let ``inherited`` and its descriptors come through the exec; runs in the process that becomes the new master."""
    for thing in inherited:
        if thing.descriptor is not None:
            os.set_inheritable(thing.descriptor, True)
    os.environ[VARIABLE] = json.dumps({"things": [asdict(thing) for thing in inherited], **_without_list(inherited)})


@dataclass
class Inheritance:
    """Everything that a new master has inherited."""

    channel: Channel
    first_serial: int
    generation: int = 1
    protocol: int = 1
    listeners: list[Listener] = field(default_factory=list)
    control: Listener | None = None
    pidfile: Pidfile | None = None
    plugin_listeners: dict[str, list[Listener]] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    memories: dict[str, int] = field(default_factory=dict)
    passed: list[PassedDescriptor] = field(default_factory=list)
    watchdog_seconds: float = 0.0
    settings: LeftSettings | None = None

    @property
    def activation(self) -> Activation:
        """Everything that systemd gave the first master."""
        return Activation(tuple(self.passed), watchdog_seconds=self.watchdog_seconds)

    def owned(self) -> list[Owned]:
        """Return everything that belongs to the old master until this one takes over."""
        of_plugins = all_of(self.plugin_listeners)
        return [*self.listeners, *of_plugins, *(each for each in (self.control, self.pidfile) if each)]

    @classmethod
    def from_environment(cls) -> Inheritance | None:
        """Read the list in the environment; None if this is no upgrade. Raises `StartError` for an unusable list."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            return _read(_listed(json.loads(text)))
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise StartError(f"cannot use {VARIABLE}, which an old master has set: {error!r}") from error


def _listed(told: dict[str, Any]) -> list[Thing]:
    if "things" not in told:
        return _with_list(told)
    return [Thing(each["name"], each.get("value"), each.get("descriptor")) for each in told["things"]]


def _read(inherited: list[Thing]) -> Inheritance:
    found: dict[str, list[Any]] = defaultdict(list)
    for thing in inherited:
        if thing.descriptor is not None:
            os.set_inheritable(thing.descriptor, False)
        if thing.name in _READERS:
            found[thing.name].append(_READERS[thing.name](thing))
        elif thing.descriptor is not None:
            os.close(thing.descriptor)
    for name in ("channel", "first_serial"):
        if name not in found:
            raise ValueError(f"found no {name}, expected one")
    of_plugins: dict[str, list[Listener]] = defaultdict(list)
    for header, listener in found.pop("plugin_listener", []):
        of_plugins[header].append(listener)
    listeners, passed, stopped = (found.pop(name, []) for name in ("listener", "passed", "plugin"))
    memories = dict(found.pop("memory", []))
    single = {name: values[-1] for name, values in found.items()}
    return Inheritance(
        listeners=listeners,
        plugin_listeners=dict(of_plugins),
        stopped=dict(stopped),
        passed=passed,
        memories=memories,
        **single,
    )


def _descriptor(thing: Thing) -> int:
    if thing.descriptor is None:
        raise ValueError(f"found no descriptor of the {thing.name}, expected one")
    return thing.descriptor


def _read_channel(thing: Thing) -> Channel:
    return Channel(socket.socket(fileno=_descriptor(thing)))


def _read_listener(thing: Thing) -> Listener:
    mark = thing.value.get("mark")
    address: Any = parse_bind(thing.value["address"])
    return Listener.inherited(address, _descriptor(thing), (mark[0], mark[1]) if mark else None)


def _read_pidfile(thing: Thing) -> Pidfile:
    return Pidfile(thing.value, _descriptor(thing))


def _read_settings(thing: Thing) -> LeftSettings:
    with open(_descriptor(thing), "rb") as opened:
        opened.seek(0)
        number, texts, places, *more = json.loads(opened.read())
    given = Given(int(number), {str(key): str(text) for key, text in texts.items()}, dict(places))
    return LeftSettings(given, History().decoded(more[0]), dict(more[1])) if more else LeftSettings(given)


_READERS: dict[str, Callable[[Thing], Any]] = {
    "channel": _read_channel,
    "protocol": lambda thing: int(thing.value),
    "generation": lambda thing: int(thing.value),
    "first_serial": lambda thing: int(thing.value),
    "listener": _read_listener,
    "plugin_listener": lambda thing: (str(thing.value["header"]), _read_listener(thing)),
    "plugin": lambda thing: (str(thing.value["header"]), str(thing.value["stopped"])),
    "memory": lambda thing: (str(thing.value), _descriptor(thing)),
    "control": _read_listener,
    "pidfile": _read_pidfile,
    "passed": lambda thing: PassedDescriptor(str(thing.value), _descriptor(thing)),
    "watchdog_seconds": lambda thing: float(thing.value),
    "settings": _read_settings,
}


# -- older builds know no list: they read and write fixed keys, and need all but "protocol" and "marks"


def _without_list(inherited: Sequence[Thing]) -> dict[str, Any]:
    """Write the keys that an older build reads."""
    by_name = {thing.name: thing for thing in inherited}
    sockets = [thing for thing in inherited if thing.name in ("listener", "control")]
    control, pidfile = by_name.get("control"), by_name.get("pidfile")
    return {
        "channel": by_name["channel"].descriptor,
        **{name: by_name[name].value for name in ("protocol", "generation", "first_serial")},
        "listeners": [(each.value["address"], each.descriptor) for each in sockets if each is not control],
        "control": (control.value["address"], control.descriptor) if control else None,
        "pidfile": (pidfile.value, pidfile.descriptor) if pidfile else None,
        "marks": {each.value["address"]: each.value["mark"] for each in sockets},
    }


def _with_list(told: dict[str, Any]) -> list[Thing]:
    """Make the list from the keys of an older build."""
    marks = told.get("marks", {})
    sockets = [("listener", each) for each in told["listeners"]]
    sockets += [("control", told["control"])] if told["control"] else []
    return [
        Thing("channel", descriptor=told["channel"]),
        Thing("protocol", told.get("protocol", 1)),
        Thing("generation", told["generation"]),
        Thing("first_serial", told["first_serial"]),
        *(Thing(name, {"address": text, "mark": marks.get(text)}, number) for name, (text, number) in sockets),
        *([Thing("pidfile", *told["pidfile"])] if told["pidfile"] else []),
    ]
