"""Commands by signal and otherwise: which is done, which waits, and which the other master of an upgrade does."""

from __future__ import annotations

import math
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.ipc.messages import Asked
from rpccluster.master.control.commands import Commands
from rpccluster.master.control.signal_commands import SignalCommands
from rpccluster.master.phases import Event, Phase

from ..made_up import cluster, group, ready


class Rig:
    """The commands of a master that notes what it does."""

    def __init__(self) -> None:
        self.told: list[Asked] = []
        self.done: list[str] = []
        self.cluster: Any = cluster()
        self.workers = group(ready(0), ready(1), section=self.cluster)
        self.new_master: Any = SimpleNamespace(
            is_under_way=False,
            is_committing=False,
            pass_on=self.told.append,
            give_up=lambda reason: None,
            begin=lambda: self.done.append("upgrade"),
            refuse=lambda reason: self.done.append(f"no upgrade: {reason}"),
        )
        self.reloading: Any = SimpleNamespace(
            is_staged=False,
            give_up=lambda reason: self.done.append(f"no reload: {reason}"),
            begin=lambda is_all, author: self.done.append("reload all" if is_all else "reload"),
            refuse=lambda reason: self.done.append(f"no reload: {reason}"),
        )
        self.drain_seconds = 0.0
        self.commands = Commands(
            self.cluster,
            self.workers,
            self.reloading,
            self.new_master,
            self.reopen,
            lambda: self.done.append("stop"),
            lambda: self.drain_seconds,
            lambda: 100.0,
        )
        system: Any = SimpleNamespace(has_terminal=lambda: False)
        self.signals = SignalCommands(system, self.cluster, self.commands, self.new_master)

    def reopen(self) -> None:
        self.done.append("reopen")

    def gets(self, *signums: int) -> list[Asked]:
        for signum in signums:
            self.signals.handle(signum)
        return self.told


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("name", ["hup", "term", "ttin", "ttou", "usr2", "winch"])
def test_a_master_that_leaves_passes_signals_on(rig: Rig, name: str) -> None:
    """The other one has everything that they are about."""
    rig.cluster.phase = Phase.LEAVING
    assert rig.gets(getattr(signal, f"SIG{name.upper()}")) == [Asked(name)]
    assert (rig.cluster.phase, rig.workers.wanted) == (Phase.LEAVING, 2)


def test_what_changes_what_is_wanted_is_for_the_new_master_too(rig: Rig) -> None:
    """In its order; what a stop or a reload is about is not."""
    rig.gets(signal.SIGTTIN, signal.SIGUSR1, signal.SIGHUP, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTERM)
    assert rig.told == [Asked("scale", 3), Asked("usr1"), Asked("winch"), Asked("scale", 1)]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1])
def test_what_both_masters_are_asked_both_do(rig: Rig, signum: int) -> None:
    """The one that leaves, too."""
    rig.cluster.phase = Phase.LEAVING
    assert len(rig.gets(signum)) == 1
    assert rig.done


def test_a_new_master_does_what_the_old_one_was_asked(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """A later version may pass on what this one does not know."""
    rig.signals.do_too(Asked("ttin"))
    assert rig.workers.wanted == 3
    rig.signals.do_too(Asked("scale", 7))
    assert rig.workers.wanted == 7
    rig.signals.do_too(Asked("winch"))
    assert rig.cluster.phase is Phase.DRAINED
    for what in ("kill", "no signal", "_dfl"):
        rig.signals.do_too(Asked(what))
    assert caplog.text.count("Cannot obey what the old master passed on: ") == 3


def test_what_the_old_master_was_asked_waits_while_a_third_one_takes_over(rig: Rig) -> None:
    """It may have taken over: it must not be killed, and is passed on what comes now."""
    rig.new_master.is_committing = True
    for what in ("term", "ttin"):
        rig.signals.do_too(Asked(what))
    rig.signals.obey_kept()
    assert (rig.cluster.phase, rig.done, rig.told) == (Phase.RUNNING, [], [])
    rig.new_master.is_committing, rig.cluster.phase = False, Phase.LEAVING
    for _ in range(2):
        rig.signals.obey_kept()
    assert rig.told == [Asked("term"), Asked("ttin")]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGWINCH])
def test_a_reload_that_boots_its_first_worker_is_given_up(rig: Rig, signum: int) -> None:
    """What it has opened goes, and nothing of it is committed while the cluster stops."""
    rig.gets(signum)
    assert rig.done[0].startswith("no reload: overtaken: the cluster ")


def test_a_stop_is_begun_once(rig: Rig) -> None:
    """A quick one overtakes a graceful one, and nothing overtakes that."""
    rig.gets(signal.SIGTERM, signal.SIGTERM)
    assert rig.done.count("stop") == 1
    rig.gets(signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
    assert (rig.done.count("stop"), rig.cluster.phase) == (2, Phase.QUITTING)


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH])
def test_what_begins_something_waits_for_the_start(rig: Rig, signum: int) -> None:
    """The last of them; scaling need not wait."""
    rig.cluster.phase = Phase.STARTING
    rig.gets(signal.SIGHUP, signum, signal.SIGTTIN)
    rig.signals.obey_kept()
    assert (rig.done, rig.cluster.phase, rig.workers.wanted) == ([], Phase.STARTING, 3)
    rig.cluster.note(Event.BOOTED)
    for _ in range(2):
        rig.signals.obey_kept()
    assert len(rig.done) == 1


def test_one_change_at_a_time(rig: Rig) -> None:
    """A reload waits for an upgrade, and an upgrade for a reload; a reload overtakes another."""
    rig.new_master.is_under_way = True
    rig.gets(signal.SIGHUP)
    assert rig.done == []
    rig.new_master.is_under_way, rig.reloading.is_staged = False, True
    rig.signals.obey_kept()
    rig.gets(signal.SIGUSR2)
    assert rig.done == ["reload all"]
    rig.reloading.is_staged = False
    rig.signals.obey_kept()
    assert rig.done == ["reload all", "upgrade"]


def test_who_asks_for_a_change_at_a_wrong_time_hears_why(rig: Rig) -> None:
    """By the control socket, which keeps nothing."""
    rig.new_master.is_under_way = True
    rig.commands.reload()
    rig.new_master.is_under_way, rig.reloading.is_staged = False, True
    rig.commands.upgrade()
    rig.cluster.phase, rig.reloading.is_staged = Phase.STARTING, False
    rig.commands.reload()
    rig.commands.upgrade()
    assert rig.done == [
        "no reload: the cluster is upgrading",
        "no upgrade: the cluster is reloading",
        "no reload: the cluster is starting",
        "no upgrade: the cluster is starting",
    ]


def test_the_last_worker_stays(rig: Rig) -> None:
    """Nor is one taken away after a drain, which scaling up ends with one worker."""
    rig.gets(signal.SIGTTOU, signal.SIGTTOU)
    assert rig.workers.wanted == 1
    rig.gets(signal.SIGWINCH, signal.SIGTTOU)
    assert rig.cluster.phase is Phase.DRAINED
    rig.gets(signal.SIGTTIN)
    assert (rig.workers.wanted, rig.cluster.phase) == (1, Phase.RUNNING)


def test_a_stop_lets_clients_turn_away_first(rig: Rig) -> None:
    """A cluster that the registry lists leaves it, and stops when its ``drain_delay`` is over."""
    rig.drain_seconds = 2.0
    rig.gets(signal.SIGTERM)
    assert rig.cluster.phase is Phase.DEPARTING and rig.commands.wake_at == 102.0
    assert rig.done == ["no reload: overtaken: the cluster stops"]
    rig.commands.turn(101.9)
    assert rig.cluster.phase is Phase.DEPARTING
    rig.commands.turn(102.0)
    assert rig.cluster.phase is Phase.STOPPING and rig.commands.wake_at == math.inf
    assert rig.done[-1] == "stop"


@pytest.mark.parametrize("signum, phase", [(signal.SIGTERM, Phase.STOPPING), (signal.SIGINT, Phase.QUITTING)])
def test_a_second_signal_does_not_wait(rig: Rig, signum: int, phase: Phase) -> None:
    """Nor does the first one, if it is that of a quick stop; and a drained cluster has nobody to wait for."""
    rig.drain_seconds = 2.0
    rig.gets(signal.SIGTERM)
    rig.gets(signum)
    assert rig.cluster.phase is phase and rig.commands.wake_at == math.inf
    for before in (Phase.DRAINED, Phase.STARTING):
        rig.cluster.phase = before
        rig.gets(signum)
        assert rig.cluster.phase is phase


def test_who_departs_changes_no_more(rig: Rig) -> None:
    """A reload and an upgrade are refused; workers are kept, and those that die are replaced."""
    rig.drain_seconds = 2.0
    rig.gets(signal.SIGTERM)
    rig.done.clear()
    rig.gets(signal.SIGHUP, signal.SIGUSR2)
    assert rig.done == ["no reload: the cluster is departing", "no upgrade: the cluster is departing"]
    assert rig.cluster.phase.allows.starts_children
