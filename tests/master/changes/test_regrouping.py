"""What a reload does to the groups of plugins, and when that is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rpccluster.config import Configuration, Sources, load
from rpccluster.master.changes.plan import make_plan
from rpccluster.master.changes.regrouping import Regrouping
from rpccluster.master.children.child import Child
from rpccluster.master.children.group import Group
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.plugins.plugin import Plugin
from rpccluster.system import Exit

from ..made_up import booting, cluster, ready

NOW = 50.0


def plugin(name: str, **options: object) -> str:
    return f"[plugin:{name}]\nrun = a:b\n" + "".join(f"{key} = {value}\n" for key, value in options.items())


class Rig:
    """The groups of a made-up cluster of plugins, and reloads of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.cluster = cluster()
        kind, nothing = Plugin(lambda: NOW), None
        unused: Any = nothing
        self.groups = Groups(unused, unused, unused, unused, {"plugin": kind}, [])
        self.regrouping = Regrouping(self.cluster, self.groups)
        self.now = NOW
        self.reload("")

    def reload(self, text: str) -> None:
        (self._folder / "x.ini").write_text(f"[cluster]\nservice = a:b\n{text}")
        changed: Configuration = load(Sources("x.ini", start_folder=str(self._folder)), None)
        plan = make_plan(self.cluster.configuration, changed, self.groups.all, is_all=False)
        self.cluster.configuration = changed
        self.regrouping.begin(plan, changed, self.now)

    def group(self, name: str = "a") -> Group:
        found = self.groups.named(f"plugin:{name}")
        assert found is not None
        return found

    def serve(self, name: str = "a") -> Child:
        """Make the one process of a plugin ready, in its present generation."""
        group = self.group(name)
        group.has_begun = True
        child = ready(0, group.generation)
        group.children.append(child)
        return child


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_new_plugin_is_done_when_it_is_ready(rig: Rig) -> None:
    """Or has failed, which is told with its reason."""
    rig.reload(plugin("a"))
    assert rig.regrouping.is_under_way()
    rig.serve()
    assert not rig.regrouping.is_under_way()
    assert rig.regrouping.finish() == ""
    rig.reload(plugin("a") + plugin("b"))
    rig.group("b").failure, rig.group("b").failed_at = "no such file", NOW + 1
    assert not rig.regrouping.is_under_way()
    assert rig.regrouping.finish() == "plugin:b is waiting: no such file"


def test_a_failure_of_before_is_none_of_this_reload(rig: Rig) -> None:
    """A changed plugin gets another try."""
    rig.reload(plugin("a"))
    rig.group().failure, rig.group().failed_at = "sour", NOW + 1
    rig.regrouping.finish()
    rig.now += 10
    rig.reload(plugin("a", args=2))
    assert rig.regrouping.is_under_way()
    assert rig.group().forgiven_at == rig.now


def test_a_changed_plugin_is_done_when_its_old_processes_are_replaced(rig: Rig) -> None:
    """Not before, though one of them still serves."""
    rig.reload(plugin("a"))
    old = rig.serve()
    rig.regrouping.finish()
    rig.reload(plugin("a", args=2))
    assert rig.group().is_rolling
    assert rig.regrouping.is_under_way()
    rig.group().children.remove(old)
    assert rig.regrouping.is_under_way()
    rig.serve()
    assert not rig.regrouping.is_under_way()
    rig.regrouping.finish()
    assert not rig.group().is_rolling


def test_what_is_applied_live_replaces_nobody(rig: Rig) -> None:
    """A plugin that has done its work does not run again for it; it does when that is what has changed."""
    rig.reload(plugin("a", restart="never"))
    group = rig.group()
    group.has_begun = True
    group.finished.add(0)
    rig.reload(plugin("a", restart="never", description="x"))
    assert (group.generation, group.is_rolling, group.finished, group.description) == (1, False, {0}, "x")
    rig.reload(plugin("a", restart="always", description="x"))
    assert group.finished == set()


def test_a_removed_plugin_is_done_when_it_has_ended(rig: Rig) -> None:
    """One whose section comes back before is taken back, with what it says now."""
    rig.reload(plugin("a") + plugin("b"))
    rig.serve()
    old = rig.serve("b")
    rig.regrouping.finish()
    rig.reload(plugin("a"))
    assert rig.group("b").is_removed
    assert rig.regrouping.is_under_way()
    rig.reload(plugin("a") + plugin("b", args=5))
    assert (rig.group("b").is_removed, rig.group("b").stopped, rig.group("b").generation) == (False, "", 2)
    rig.group("b").children.remove(old)
    rig.reload(plugin("a"))
    assert not rig.regrouping.is_under_way()


def test_a_plugin_that_comes_back_is_started_only_if_it_starts_by_itself(rig: Rig) -> None:
    """As one that is new would be, also when its processes have not ended yet."""
    rig.reload(plugin("a"))
    rig.serve()
    rig.reload("")
    rig.reload(plugin("a", autostart="false"))
    assert (rig.group().is_removed, rig.group().stopped) == (False, "autostart = false")
    assert not rig.group().has_begun  # it waits for what its section says now


def test_what_is_stopped_stays_stopped_and_is_done(rig: Rig) -> None:
    """By hand, or since it does not start by itself, until its section says that it does."""
    rig.reload(plugin("a", autostart="false"))
    assert not rig.regrouping.is_under_way()
    rig.reload(plugin("a", autostart="false", args=1))
    assert rig.group().stopped == "autostart = false"
    rig.reload(plugin("a", args=1))
    assert rig.group().stopped == ""
    rig.group().stopped = "by hand"
    rig.reload(plugin("a", args=2))
    assert rig.group().stopped == "by hand"
    assert not rig.regrouping.is_under_way()


def test_a_run_of_a_schedule_goes_on(rig: Rig) -> None:
    """Unless the plugin has no schedule any more, or had none before."""
    pytest.importorskip("cronsim")
    rig.reload(plugin("a", schedule="0 * * * *"))
    rig.serve()
    rig.reload(plugin("a", schedule="0 * * * *", args=1))
    assert not rig.group().is_rolling
    assert not rig.regrouping.is_under_way()
    rig.reload(plugin("a", args=1))
    assert rig.group().is_rolling


def test_a_process_of_before_that_fails_now_is_none_of_this_reload(rig: Rig) -> None:
    """It was booting, with the options of the former one, when this one came."""
    rig.reload(plugin("a"))
    group = rig.group()
    group.has_begun = True
    group.children.append(booting(0, group.generation))
    rig.reload(plugin("a", args=1))
    group.note_end(group.children[0], Exit(0, 1, None), rig.now + 1)
    assert rig.regrouping.is_under_way()
    group.children.append(booting(0, group.generation))
    group.note_end(group.children[0], Exit(0, 2, None), rig.now + 2)
    assert rig.regrouping.finish() == "plugin:a is waiting: exit code 2"


def test_every_pause_is_forgiven(rig: Rig) -> None:
    """Also of a plugin whose section is the same: its code may be mended."""
    rig.reload(plugin("a"))
    rig.now += 10
    rig.reload(plugin("a"))
    assert rig.group().forgiven_at == rig.now
    assert rig.group().generation == 1


def test_what_a_reload_has_overtaken_is_still_followed(rig: Rig) -> None:
    """The first one's plugin may fail after the second has begun."""
    rig.reload(plugin("a"))
    rig.now += 1
    rig.reload(plugin("a"))
    assert rig.regrouping.is_under_way()
    rig.group().failure, rig.group().failed_at = "sour", NOW + 0.5
    assert rig.regrouping.finish() == "plugin:a is waiting: sour"
