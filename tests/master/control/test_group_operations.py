"""The control socket's methods about one group: what each makes wanted, and when it answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.master.children.child import ChildState
from rpccluster.master.children.group import Group
from rpccluster.master.control.group_operations import Check, GroupOperations
from rpccluster.master.kinds.plugins.groups import plugin_group
from rpccluster.master.kinds.plugins.plugin import Plugin
from rpccluster.master.phases import Phase

from ..made_up import DAILY, booting, cluster, ready


class Answered:
    """An answer that only notes what it was called with; its caller may go."""

    def __init__(self) -> None:
        self.is_awaited = True
        self.told: Any = None

    def __call__(self, error: str | None, result: Any) -> None:
        self.told = error or result


class Rig:
    """The group of one plugin, of one process, and the answers that wait."""

    def __init__(self) -> None:
        self.time = 10.0
        kind = Plugin(lambda: self.time)
        self.group: Group = plugin_group("plugin:a", PluginOptions(run="a:b"), cluster(), kind)
        self.group.has_begun = True
        self.group.children = [ready()]
        groups: Any = SimpleNamespace(all=[self.group], named=self._named, wake=lambda: None)
        system: Any = SimpleNamespace(monotonic=lambda: self.time)
        self.waiting: list[tuple[Check, Answered]] = []
        self.new_master: Any = SimpleNamespace(is_under_way=False, refusal=lambda: self.refusal)
        self.refusal = ""
        self.operations = GroupOperations(system, groups, self.new_master, lambda *pair: self.waiting.append(pair))  # type: ignore[arg-type]

    def _named(self, name: str) -> Group | None:
        return self.group if name == self.group.name else None

    def ask(self, method: str, *params: Any) -> Answered:
        answer: Any = Answered()
        methods = {**self.operations.methods(), **self.operations.readings()}
        methods[f"plugin.{method}"](list(params), answer)
        return self.told(answer)

    def scale(self, number: object) -> Answered:
        answer: Any = Answered()
        self.operations.scale("a", number, answer)
        return self.told(answer)

    def told(self, answer: Answered) -> Answered:
        """Answer what is done."""
        self.time += 1.0
        for check, each in list(self.waiting):
            outcome = check() if each.told is None and each.is_awaited else None
            if outcome is not None:
                each(outcome.error, outcome.result)
        return answer

    def fail(self) -> None:
        self.group.failure, self.group.failed_at = "no module", self.time + 0.5


def test_a_stop_is_done_when_the_last_process_has_ended() -> None:
    """It stays wanted, and stopped."""
    rig = Rig()
    answer = rig.ask("stop", "a")
    assert (answer.told, rig.group.stopped, rig.group.wanted) == (None, "by hand", 1)
    rig.group.children = []
    assert rig.told(answer).told is True
    assert rig.ask("stop", "a").told is True


def test_a_start_is_done_when_it_is_ready() -> None:
    """Of a running one at once; one that cannot boot says why."""
    rig = Rig()
    assert rig.ask("start", "a").told is True
    rig.group.children, rig.group.stopped = [], "by hand"
    answer = rig.ask("start", "a")
    assert (answer.told, rig.group.stopped) == (None, "")
    rig.group.children = [ready()]
    assert rig.told(answer).told is True
    rig.group.children, rig.group.finished = [], {0}
    answer = rig.ask("start", "a")
    assert (answer.told, rig.group.finished) == (None, set())
    rig.fail()
    assert rig.told(answer).told == "RuntimeError: plugin a could not boot: no module"


def test_a_restart_is_done_when_those_that_were_there_are_gone_and_others_ready() -> None:
    """A stopped one starts; if no successor boots, those that were there stay."""
    rig = Rig()
    (old,) = rig.group.children
    answer = rig.ask("restart", "a")
    assert (answer.told, old.overdue.reason) == (None, "restarted by hand")  # type: ignore[union-attr]
    rig.fail()
    assert rig.told(answer).told == "RuntimeError: plugin a could not boot: no module"
    assert old.overdue is None
    answer = rig.ask("restart", "a")
    rig.group.children = [ready(0)]
    assert rig.told(answer).told is True
    rig.group.children, rig.group.stopped = [], "by hand"
    assert (rig.ask("restart", "a").told, rig.group.stopped) == (None, "")


def test_what_runs_by_a_schedule_is_not_restarted() -> None:
    """It starts when a run is due: a start makes it wait for that."""
    rig = Rig()
    rig.group.timetable, rig.group.children = DAILY, []
    assert rig.ask("restart", "a").told == "RuntimeError: plugin a runs by its schedule"
    rig.group.stopped = "by hand"
    assert (rig.ask("start", "a").told, rig.group.stopped) == (True, "")


def test_the_number_of_processes_is_changed_and_waited_for() -> None:
    """By steps, too."""
    rig = Rig()
    answer = rig.scale("+1")
    assert (answer.told, rig.group.wanted) == (None, 2)
    rig.group.children = [ready(0), ready(1)]
    assert rig.told(answer).told == {"wanted": 2}
    with pytest.raises(ValueError, match="found 0 processes"):
        rig.scale(0)


def test_commands_to_one_group_wait_their_turn() -> None:
    """One whose client has gone is left out."""
    rig = Rig()
    stop, gone, start = rig.ask("stop", "a"), rig.ask("stop", "a"), rig.ask("start", "a")
    gone.is_awaited = False
    assert (stop.told, start.told, rig.group.stopped) == (None, None, "by hand")
    rig.group.children = []
    rig.told(stop)
    assert (stop.told, start.told, rig.group.stopped) == (True, None, "")
    rig.group.children = [booting(state=ChildState.BOOTING)]
    assert rig.told(start).told is None
    rig.group.children = [ready()]
    assert rig.told(start).told is True


def test_commands_wait_for_the_end_of_an_upgrade() -> None:
    """The new master knows what was wanted when it was started; once it has taken over it is to be asked."""
    rig = Rig()
    rig.new_master.is_under_way = True
    stop, other = rig.ask("stop", "a"), rig.ask("stop", "a")
    assert rig.group.stopped == ""
    rig.new_master.is_under_way = False
    rig.told(stop)
    assert rig.group.stopped == "by hand"
    rig.group.children, rig.refusal = [], "ask that one"
    rig.told(stop)
    assert (stop.told, rig.told(other).told) == (True, "RuntimeError: ask that one")


@pytest.mark.parametrize("method", ["start", "stop", "restart"])
def test_a_stop_of_the_cluster_or_a_removal_ends_all_waiting(method: str) -> None:
    """With the reason."""
    rig = Rig()
    rig.group.children = [booting()]
    answer = rig.ask(method, "a")
    rig.group.phase = Phase.STOPPING
    assert rig.told(answer).told == "RuntimeError: overtaken: the cluster is stopping"
    rig.group.phase = Phase.RUNNING
    answer = rig.ask(method, "a")
    rig.group.is_removed = True
    assert rig.told(answer).told == "RuntimeError: overtaken: plugin a was removed"


@pytest.mark.parametrize("method", ["start", "stop", "restart"])
def test_a_plugin_that_was_removed_is_left_alone(method: str) -> None:
    """While its processes end: nothing may bring it back."""
    rig = Rig()
    rig.group.is_removed, rig.group.stopped = True, "removed"
    assert rig.ask(method, "a").told == "RuntimeError: overtaken: plugin a was removed"
    assert rig.group.stopped == "removed"


def test_a_start_that_is_overtaken_by_a_stop_says_so() -> None:
    """By anybody who stops the plugin otherwise."""
    rig = Rig()
    rig.group.children, rig.group.stopped = [], "by hand"
    start, restart = rig.ask("start", "a"), rig.ask("restart", "a")
    rig.group.stopped = "by somebody"
    assert rig.told(start).told == "RuntimeError: overtaken: plugin a was stopped by somebody"
    rig.told(restart)
    rig.group.stopped = "by somebody"
    assert rig.told(restart).told == "RuntimeError: overtaken: plugin a was stopped by somebody"


def test_the_last_lines_come_at_once_and_those_after_a_number() -> None:
    """Lines that are no longer kept are left out."""
    rig = Rig()
    section: Any = rig.group.section
    section.output.write(7, ["one", "two", "three"])
    told = rig.ask("tail", "a", 2).told
    assert [line.split("] ")[-1] for line in told["lines"]] == ["two", "three"]
    assert rig.ask("tail", "a", 100, told["next"]).told["lines"] == []
    section.output.write(7, ["four"])
    (line,) = rig.ask("tail", "a", 100, told["next"]).told["lines"]
    assert line.endswith("[7] [a] four")


@pytest.mark.parametrize("params", [("b",), ("workers",), (1,)])
def test_an_unknown_plugin_is_refused(params: tuple[Any, ...]) -> None:
    """With the names that there are."""
    with pytest.raises(ValueError, match="expected one of a"):
        Rig().ask("stop", *params)


@pytest.mark.parametrize("params", [("a", "x"), ("a", 1, "x"), ("a", -1), ("a", 1, -1)])
def test_a_tail_without_numbers_is_refused(params: tuple[Any, ...]) -> None:
    """Both are numbers from 0 on."""
    with pytest.raises(ValueError, match="found no numbers"):
        Rig().ask("tail", *params)
