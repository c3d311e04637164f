"""Plugins as their master sees them: what a group gets of its options, when a process is ready, and when it hangs."""

from __future__ import annotations

import os
import signal
import socket
from array import array
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.ipc.channel import channel_pair
from rpccluster.ipc.messages import BootFailed, Ready, WantsToRetire
from rpccluster.ipc.scoreboard import ROW_CELLS, CommonCell, Row
from rpccluster.master.children.child import Birth, ChildState
from rpccluster.master.children.group import Group, Overlap, Restart
from rpccluster.master.kinds.kind import Booted
from rpccluster.master.kinds.plugins.groups import plugin_group, revise
from rpccluster.master.kinds.plugins.plugin import ALIVE_SECONDS, Plugin, PluginProcess

from ...made_up import cluster


class Rig:
    """A plugin's group, the kind, a clock, and processes that nobody has forked."""

    def __init__(self, **options: Any) -> None:
        self.time = 100.0
        self.cluster = cluster()
        self.kind = Plugin(lambda: self.time)
        self.group: Group = plugin_group("plugin:a", options_of(**options), self.cluster, self.kind)
        self.open: list[Any] = []

    def process(self) -> tuple[PluginProcess, Any]:
        one, self.far_end = channel_pair()
        row = Row(memoryview(array("Q", [0] * ROW_CELLS)))
        child, part = self.kind.equip(Birth(0, 1, self.group.section, 0, row, one, [0], self.time))
        child.pid = os.getpid()
        self.open += [child, self.far_end]
        return child, part


def options_of(**options: Any) -> PluginOptions:
    return PluginOptions(**({} if "command" in options else {"run": "a:b"}), **options)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        made.append(Rig(**options))
        return made[-1]

    yield make
    for each in made:
        for thing in each.open:
            thing.close()


def test_a_group_is_what_its_section_says(rig: Any) -> None:
    """Named, of its kind, with what it has from the cluster; it does not count at a start."""
    made = rig(processes=3, after=("plugin:b",), restart="never", essential=True, description="why").group
    assert (made.name, made.noun, made.title_of(2), made.wanted) == ("plugin:a", "plugin a", "plugin a", 3)
    assert (made.after, made.restart, made.is_essential) == (("plugin:b",), Restart.NEVER, True)
    assert (made.overlap, made.counts_at_start, made.description) == (Overlap.PREDECESSOR_FIRST, False, "why")
    assert rig(overlap="successor").group.overlap is Overlap.SUCCESSOR_FIRST
    assert rig(autostart=False).group.stopped == "autostart = false"
    assert rig(schedule="0 0 * * *", timezone="UTC").group.is_scheduled


def test_what_it_has_from_the_cluster_follows_the_cluster(rig: Any) -> None:
    """For the processes that start from then on."""
    made = rig()
    assert made.group.options.log_level == "info"
    changed = SimpleNamespace(**{**vars(made.cluster.options), "log_level": "debug"})
    made.cluster.configuration = SimpleNamespace(options=changed)
    assert made.group.options.log_level == "debug"
    assert made.group.options is made.group.options


def test_other_options_replace_its_processes(rig: Any) -> None:
    """At once, whatever was; the same schedule goes on, and so does a run of it."""
    made = rig(schedule="0 0 * * *", timezone="UTC")
    present = made.group.timetable
    revise(made.group, options_of(schedule="0 0 * * *", timezone="UTC", processes=2), 5.0)
    assert (made.group.generation, made.group.wanted, made.group.is_rolling) == (2, 2, False)
    assert (made.group.timetable, made.group.forgiven_at) == (present, 5.0)
    revise(made.group, options_of(), 6.0)
    assert (made.group.timetable, made.group.is_rolling) == (None, True)


def test_a_function_says_when_it_is_ready(rig: Any) -> None:
    """And why it cannot boot; nothing else that it says concerns anybody."""
    made = rig()
    child, part = made.process()
    assert (part.name, part.notify, part.output) == ("a", "", child.output.far_end)
    assert made.kind.hear(child, Ready([]), [], 0.0) == Booted(child)
    assert made.kind.hear(child, WantsToRetire("x"), [], 0.0) is None
    assert made.kind.hear(child, BootFailed("service", "no module"), [], 0.0) is None
    assert (child.last_words, child.is_service_at_fault) == ("no module", True)


def test_a_command_is_ready_when_it_has_lived_for_a_moment(rig: Any) -> None:
    """From its exec on, which closes the channel."""
    made = rig(command=("sleep", "1"))
    child, _ = made.process()
    assert (child.counts_as_ready_at, child.ready_by) == (None, 130.0)
    made.time = 103.0
    made.far_end.close()
    assert child.read(child.channel) == []
    assert child.counts_as_ready_at == 103.0 + ALIVE_SECONDS


def test_a_command_that_speaks_is_ready_when_it_says_so(rig: Any) -> None:
    """Once, and only where it is waited for."""
    made = rig(command=("sleep", "1"), ready="notify")
    child, part = made.process()
    made.far_end.close()
    child.read(child.channel)
    assert child.counts_as_ready_at is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(part.notify.replace("@", "\0", 1))
        sock.send(b"STATUS=soon")
        assert child.read(child.notices) == []
        sock.send(b"READY=1")
        assert child.read(child.notices) == [(Ready([]), [])]
        child.note_ready(1.0)
        sock.send(b"READY=1\nWATCHDOG=1")
        assert child.read(child.notices) == []
    assert child.row[CommonCell.HEARTBEAT] == made.time * 1e9


def test_silence_counts_from_the_call_or_the_last_sign_of_life(rig: Any) -> None:
    """Before the call it is bound by ready_timeout alone, and by stop_timeout once it is told to end."""
    made = rig(timeout=5.0)
    child, _ = made.process()
    assert child.silent_since == float("inf")
    child.row[CommonCell.HEARTBEAT] = int(107e9)
    assert child.silent_since == 107.0
    made = rig(command=("sleep", "1"), timeout=5.0)
    child, _ = made.process()
    assert child.silent_since == float("inf")
    made.time = 104.0
    made.far_end.close()
    child.read(child.channel)
    assert child.silent_since == 104.0
    child.note_retirement("x", 104.0, 114.0)
    assert child.silent_since == float("inf")


def test_a_command_cannot_be_asked_where_it_hangs(rig: Any) -> None:
    """The signal for that would kill it: the kernel is asked."""
    child, _ = rig(command=("sleep", "1")).process()
    assert child.question() is None
    assert child.where_it_hangs().startswith("state ")
    child, _ = rig().process()
    assert child.question() == signal.SIGXCPU


def test_it_is_told_to_end_as_its_options_say(rig: Any) -> None:
    """By a signal of its own, also while it boots."""
    child, _ = rig(stop_signal=signal.SIGINT, stop_timeout=3.0).process()
    assert (child.stop_signal, child.slack_seconds, child.farewell(None)) == (signal.SIGINT, 0.0, None)
    child.note_retirement("x", 100.0, 103.0)
    assert child.state is ChildState.RETIRING


def test_its_memory_is_read_where_it_is_bounded(rig: Any) -> None:
    """Now and then."""
    made = rig(max_memory=1)
    child, _ = made.process()
    made.kind.look(made.group, child, 100.0)
    assert child.row[CommonCell.RSS_BYTES] > 1_000_000
    child.row[CommonCell.RSS_BYTES] = 0
    made.kind.look(made.group, child, 100.1)
    assert child.row[CommonCell.RSS_BYTES] == 0
    unbounded = rig()
    child, _ = unbounded.process()
    unbounded.kind.look(unbounded.group, child, 100.0)
    assert child.row[CommonCell.RSS_BYTES] == 0
    assert unbounded.kind.status(child, 100.0)["rss_bytes"] > 1_000_000


def test_what_it_has_written_last_is_read_when_it_has_ended(rig: Any) -> None:
    """Also a line without an end."""
    made = rig()
    child, part = made.process()
    os.write(part.output, b"one\ntwo")
    assert child.read(child.output) == []
    child.hear_rest()
    section: Any = made.group.section
    assert [line.rpartition("] ")[2] for line in section.output.tail(10).lines] == ["one", "two"]


def test_one_of_an_unknown_account_fails_by_itself(rig: Any) -> None:
    """Its process says so; the master goes on."""
    child, part = rig(command=("sleep", "1"), user="no-such-user").process()
    assert part.notify.startswith("@")
    assert child.is_command
