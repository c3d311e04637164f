"""The methods of the control socket that concern one group: a plugin, or the number of a group's processes.

Each changes what is wanted; the policy brings it about, and the answer comes when it is done, or cannot be. Commands
that come while another works on the same group wait their turn. Runs in the master.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

from rpccluster.config.cpus import MOST_WORKERS
from rpccluster.master.children.child import Child
from rpccluster.master.children.group import Group
from rpccluster.master.control.server import Answer, Method
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.plugins.groups import PluginSection
from rpccluster.master.kinds.tasks.groups import PoolSection
from rpccluster.master.upgrade.new_master import NewMaster
from rpccluster.system import System

__all__ = ["BY_HAND", "Check", "GroupOperations", "Outcome", "expect", "new_number"]

BY_HAND = "by hand"
_RESTARTED = "restarted by hand"
_TAIL_LINES = 10


@dataclass(frozen=True)
class Outcome:
    """The end of an operation; ``error`` is None if it went well."""

    error: str | None
    result: Any = None


#: Returns the end of an operation, None while it runs.
Check = Callable[[], Optional[Outcome]]


class GroupOperations:
    """The methods, and the commands that wait for others on the same group."""

    def __init__(
        self, system: System, groups: Groups, new_master: NewMaster, wait: Callable[[Check, Answer], None]
    ) -> None:
        """``wait`` answers when a check has an outcome."""
        self._system = system
        self._groups = groups
        self._new_master = new_master
        self._wait = wait
        self._turns: dict[str, deque[Answer]] = {}

    def methods(self) -> Mapping[str, Method]:
        """Return the methods by their names; `scale` is called by the one of the workers."""
        return {
            "plugin.start": self._in_turn(self._start),
            "plugin.stop": self._in_turn(self._stop),
            "plugin.restart": self._in_turn(self._restart),
        }

    def readings(self) -> Mapping[str, Method]:
        """Return the methods that change nothing, so that they may be called at any time."""
        return {"plugin.tail": self._tail}

    # -- one after another

    def _in_turn(self, begin: Callable[[Group], Check]) -> Method:
        def ask(params: list[Any], answer: Answer) -> None:
            expect(params, 1)
            self._queue(self._plugin(params[0]), begin, answer)

        return ask

    def _queue(self, group: Group, begin: Callable[[Group], Check], answer: Answer) -> None:
        """Call ``begin`` when all earlier commands to ``group`` are done, and answer when its check has an outcome.

        A new master knows what was wanted when it was started. So nothing else is wanted until it has failed.
        """
        turns = self._turns.setdefault(group.name, deque())
        turns.append(answer)
        work: Check | None = None

        def check() -> Outcome | None:
            nonlocal work
            while turns[0] is not answer and not turns[0].is_awaited:
                turns.popleft()
            if turns[0] is not answer or (work is None and self._new_master.is_under_way):
                return None
            if work is None:
                refusal = self._new_master.refusal()
                if refusal:
                    turns.popleft()
                    return Outcome(f"RuntimeError: {refusal}")
                overtaken = _overtaken(group)  # it must change nothing then
                work = (lambda: overtaken) if overtaken else begin(group)
                self._groups.wake()
            outcome = _overtaken(group) or work()
            if outcome is not None:
                turns.popleft()
            return outcome

        self._wait(check, answer)

    # -- plugins

    def _plugin(self, name: object) -> Group:
        """Return the group of the plugin ``name``. Raises ValueError."""
        plugins = {group.name: group for group in self._groups.all if isinstance(group.section, PluginSection)}
        found = plugins.get(f"plugin:{name}") or plugins.get(str(name))
        if found is None:
            names = ", ".join(group.partition(":")[2] for group in plugins)
            raise ValueError(f"found no plugin of that name, expected {f'one of {names}' if names else 'none'}")
        return found

    def _start(self, group: Group) -> Check:
        began = self._system.monotonic()
        if group.stopped or group.finished or not group.is_settled():
            group.stopped = ""
            group.forgive(began)

        def check() -> Outcome | None:
            if group.stopped:
                return Outcome(f"RuntimeError: overtaken: {group.noun} was stopped {group.stopped}")
            return _ready(group, began)

        return check

    def _stop(self, group: Group) -> Check:
        group.stopped = BY_HAND
        group.due.clear()
        return lambda: Outcome(None, True) if not group.children else None

    def _restart(self, group: Group) -> Check:
        if group.is_scheduled and not group.stopped:
            refused = Outcome(f"RuntimeError: {group.noun} runs by its schedule")
            return lambda: refused
        began = self._system.monotonic()
        group.stopped = ""
        group.forgive(began)
        old = [child for child in group.children if not child.is_expected_to_end]
        for child in old:
            child.want_recycling(began, _RESTARTED)

        def check() -> Outcome | None:
            if group.stopped:
                return Outcome(f"RuntimeError: overtaken: {group.noun} was stopped {group.stopped}")
            if group.failed_at > began:
                _leave(old)
            return None if _are_there(group, old) and group.failed_at <= began else _ready(group, began)

        return check

    def _tail(self, params: list[Any], answer: Answer) -> None:
        """Answer with the last N lines, and the number of the next one: with it, another call goes on from there."""
        expect(params, 1, 2, 3)
        section: Any = self._plugin(params[0]).section
        number = params[1] if len(params) > 1 else _TAIL_LINES
        since = params[2] if len(params) > 2 else None
        if not isinstance(number, int) or not isinstance(since, (int, type(None))) or min(number, since or 0) < 0:
            raise ValueError("found no numbers, expected how many lines, and from which on")
        lines, next_number = section.output.tail(number, since)
        answer(None, {"lines": lines, "next": next_number})

    # -- the number of processes

    def scale(self, name: object, number: object, answer: Answer) -> None:
        """Want ``number`` processes of the group ``name``. Raises ValueError."""
        group = self._groups.named(str(name)) or self._groups.named(f"plugin:{name}")
        if group is None or not isinstance(group.section, (PluginSection, PoolSection)):
            raise ValueError("found no such group, expected workers, a plugin or a pool")
        new_number(number, group.wanted)  # a fault is told at once

        def begin(group: Group) -> Check:
            began = self._system.monotonic()
            wanted = group.wanted = new_number(number, group.wanted)
            group.finished = {slot for slot in group.finished if slot < wanted}

            def check() -> Outcome | None:
                if group.wanted != wanted:
                    return Outcome(f"RuntimeError: overtaken: {group.wanted} processes are wanted now")
                outcome = _ready(group, began)
                return Outcome(None, {"wanted": wanted}) if outcome and outcome.error is None else outcome

            return check

        self._queue(group, begin, answer)


def _overtaken(group: Group) -> Outcome | None:
    if group.is_removed:
        return Outcome(f"RuntimeError: overtaken: {group.noun} was removed")
    if not group.phase.allows.wants_children:
        return Outcome(f"RuntimeError: overtaken: the cluster is {group.phase.value}")
    return None


def _ready(group: Group, began: float) -> Outcome | None:
    """Return the outcome of what began then and shall make all processes ready."""
    if group.failed_at > began:
        return Outcome(f"RuntimeError: {group.noun} could not boot: {group.failure}")
    return Outcome(None, True) if group.is_scheduled or group.is_settled() else None


def _are_there(group: Group, old: list[Child]) -> bool:
    return any(child in group.children for child in old)


def _leave(old: list[Child]) -> None:
    """Let those go on that were to be restarted, since a successor cannot boot."""
    for child in old:
        if child.overdue is not None and child.overdue.reason == _RESTARTED:
            child.overdue = None


def expect(params: list[Any], *counts: int) -> None:
    """Raise TypeError unless there are as many ``params`` as one of ``counts`` says."""
    if len(params) not in counts:
        raise TypeError(f"found {len(params)} params, expected {' or '.join(map(str, counts))}")


def new_number(asked: Any, present: int, what: str = "processes") -> int:
    """Compute the number of ``what`` from ``N``, ``+N`` or ``-N``. Raises ValueError."""
    text = str(asked) if type(asked) is int else asked
    if not isinstance(text, str) or not re.fullmatch(r"[+-]?[0-9]{1,4}", text):
        raise ValueError(f"found {text!r:.40}, expected a number of {what}: N, +N or -N")
    number = present + int(text) if text[0] in "+-" else int(text)
    if not 1 <= number <= MOST_WORKERS:
        raise ValueError(f"found {number} {what}, expected 1 to {MOST_WORKERS}")
    return number
