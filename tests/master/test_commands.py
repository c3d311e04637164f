"""Signals between two masters: what the one that leaves passes on, and what the other one does of it."""

from __future__ import annotations

import contextlib
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.ipc.messages import Asked
from rpccluster.master.control.commands import Commands
from rpccluster.master.phases import Phase

from .made_up import booting, cluster, group, ready


class Rig:
    """The commands of a master that notes what it does."""

    def __init__(self) -> None:
        self.told: list[Asked] = []
        self.new_master: Any = SimpleNamespace(is_under_way=False, pid=9, say=self.told.append)
        self.new_master.give_up = lambda reason: None
        self.cluster: Any = cluster()
        self.workers = group(ready(0), ready(1), section=self.cluster)
        self.cluster.logs = SimpleNamespace(reopen=list)
        self.overtaken: list[str] = []
        reloading: Any = SimpleNamespace(give_up=self.overtaken.append)
        reserve: Any = SimpleNamespace(lent=contextlib.nullcontext)
        broker: Any = None
        self.reopened: list[tuple[Any, list[int]]] = []
        roster: Any = SimpleNamespace(say=lambda worker, _, descriptors: self.reopened.append((worker, descriptors)))
        system: Any = SimpleNamespace(has_terminal=lambda: False)
        self.commands = Commands(
            system,
            self.cluster,
            self.workers,
            roster,
            broker,
            reloading,
            self.new_master,
            list,
            reserve,
            look=lambda: None,
        )

    def gets(self, *signums: int) -> list[Asked]:
        for signum in signums:
            self.commands.handle_signal(signum)
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


def test_what_is_done_while_a_new_master_boots_is_done_by_it_too(rig: Rig) -> None:
    """In its order, when it has taken over; nothing of an upgrade that failed."""
    rig.gets(signal.SIGTTIN)
    rig.new_master.is_under_way = True
    rig.gets(signal.SIGTTIN, signal.SIGUSR1, signal.SIGWINCH, signal.SIGTTIN)
    assert rig.told == []
    rig.commands.pass_on_what_was_asked()
    assert rig.told == [Asked("scale", 4), Asked("usr1"), Asked("winch"), Asked("scale", 1)]
    rig.commands.pass_on_what_was_asked()
    assert len(rig.told) == 4


def test_a_new_master_does_what_the_old_one_was_asked(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """A later version may pass on what this one does not know."""
    rig.commands.do_too(Asked("ttin"))
    assert rig.workers.wanted == 3
    rig.commands.do_too(Asked("scale", 7))
    assert rig.workers.wanted == 7
    rig.commands.do_too(Asked("winch"))
    assert rig.cluster.phase is Phase.DRAINED
    for what in ("kill", "no signal", "_dfl"):
        rig.commands.do_too(Asked(what))
    assert caplog.text.count("passed on what this version does not know") == 3


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGWINCH])
def test_a_reload_that_boots_its_first_worker_is_given_up(rig: Rig, signum: int) -> None:
    """What it has opened goes, and nothing of it is committed while the cluster stops."""
    rig.gets(signum)
    assert len(rig.overtaken) == 1
    assert rig.overtaken[0].startswith("overtaken: the cluster ")


@pytest.mark.parametrize("has_own_logs", [True, False])
def test_each_worker_gets_the_logs_of_its_configuration(rig: Rig, has_own_logs: bool) -> None:
    """The first one of a reload that may still be given up, too."""
    rig.cluster.logs = SimpleNamespace(reopen=lambda: [5])
    logs = SimpleNamespace(reopen=lambda: [6]) if has_own_logs else rig.cluster.logs
    rig.cluster.staged = SimpleNamespace(logs=logs, generation=2)
    old, new = ready(0), booting(0, edition=rig.cluster.staged)
    rig.workers.children[:] = [old, new]
    rig.gets(signal.SIGUSR1)
    assert sorted(descriptors for _, descriptors in rig.reopened) == [[5], [6] if has_own_logs else [5]]
    assert (old, [5]) in rig.reopened
