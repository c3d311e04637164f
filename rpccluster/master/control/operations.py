"""The methods of the control socket: what each does, and when it is done. Runs in the master.

A method answers when its work is done; until then its answer waits here with a check of that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional, Protocol

from rpccluster.config.cpus import MOST_WORKERS
from rpccluster.master.children.group import Group
from rpccluster.master.cluster import Cluster
from rpccluster.master.control.commands import Commands
from rpccluster.master.control.server import Answer, Method
from rpccluster.master.handover.broker import Broker
from rpccluster.system import System

__all__ = ["Operations", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """The end of an operation; ``error`` is None if it went well."""

    error: str | None
    result: Any = None


#: Returns the end of an operation, None while it runs.
Check = Callable[[], Optional[Outcome]]


class Change(Protocol):
    """A reload or an upgrade; ``failure`` is why the last one failed, empty if it went well."""

    failure: str

    @property
    def is_under_way(self) -> bool:
        """Whether it has yet to succeed or fail."""


class Operations:
    """The methods, and the answers that still wait."""

    def __init__(
        self,
        system: System,
        cluster: Cluster,
        workers: Group,
        commands: Commands,
        broker: Broker,
        status: Callable[[], dict[str, Any]],
    ) -> None:
        """``status`` makes the contract's ``status``."""
        self._system = system
        self._cluster = cluster
        self._workers = workers
        self._make_status = status
        self._commands = commands
        self._broker = broker
        self._waiting: list[tuple[Check, Answer]] = []
        self._has_ended = False

    def methods(self) -> Mapping[str, Method]:
        """Return the methods by their names."""
        return {
            "status": self._status,
            "scale": self._while_ours(self._scale),
            "reload": self._while_ours(self._reload),
            "rebalance": self._while_ours(self._rebalance),
            "upgrade": self._upgrade,
            "stop": self._while_ours(self._stop),
            "rpc.ping": lambda params, answer: answer(None, "pong"),
        }

    def _while_ours(self, method: Method) -> Method:
        """Wrap ``method`` to refuse it while this master completes an upgrade or leaves."""

        def ask(params: list[Any], answer: Answer) -> None:
            reason = self._commands.new_master.refusal()
            if reason:
                answer(f"RuntimeError: {reason}", None)
            else:
                method(params, answer)

        return ask

    def answer_what_is_done(self) -> None:
        """Send the answers that are due; called after every turn of the loop."""
        still = []
        for check, answer in self._waiting:
            outcome = check()
            if outcome is not None:
                answer(outcome.error, outcome.result)
            elif answer.is_awaited:
                still.append((check, answer))
        self._waiting = still

    def end(self) -> None:
        """Answer everything, since the master ends: a stop is done, and nothing else will ever be."""
        self._has_ended = True
        for check, answer in self._waiting:
            outcome = check() or Outcome("RuntimeError: the master has stopped")
            answer(outcome.error, outcome.result)
        self._waiting = []

    def _status(self, params: list[Any], answer: Answer) -> None:
        _expect(params, 0)
        answer(None, self._make_status())

    def _scale(self, params: list[Any], answer: Answer) -> None:
        _expect(params, 1)
        cluster, workers = self._cluster, self._workers
        wanted = _new_number(params[0], workers.wanted)
        began = self._system.monotonic()
        self._commands.scale(wanted)

        def check() -> Outcome | None:
            if cluster.phase.allows.hands_over:
                return Outcome("RuntimeError: passed on to a new master, which has taken over")
            if workers.wanted != wanted or cluster.phase.allows.ends_when_empty:
                return Outcome(f"RuntimeError: overtaken: {workers.wanted} workers are wanted now")
            if workers.failed_at > began:
                return Outcome(f"RuntimeError: a worker could not boot: {workers.failure}")
            return Outcome(None, {"number_workers": wanted}) if workers.is_settled() else None

        self._waiting.append((check, answer))

    def _reload(self, params: list[Any], answer: Answer) -> None:
        _expect(params, 0)
        self._commands.reload()
        cluster = self._cluster
        self._answer_after(self._commands.reloading, lambda: {"generation": cluster.generation}, answer)

    def _rebalance(self, params: list[Any], answer: Answer) -> None:
        _expect(params, 0)
        broker = self._broker
        broker.even_out()
        self._waiting.append((lambda: None if broker.is_uneven else Outcome(None, True), answer))

    def _upgrade(self, params: list[Any], answer: Answer) -> None:
        _expect(params, 0)
        self._commands.upgrade()
        new_master = self._commands.new_master
        self._answer_after(new_master, lambda: {"pid": new_master.pid}, answer)

    def _answer_after(self, change: Change, result: Callable[[], Any], answer: Answer) -> None:
        def check() -> Outcome | None:
            if change.is_under_way:
                return None
            return Outcome(f"RuntimeError: {change.failure}") if change.failure else Outcome(None, result())

        self._waiting.append((check, answer))

    def _stop(self, params: list[Any], answer: Answer) -> None:
        _expect(params, 0, 1)
        self._commands.stop(is_quick=bool(params and params[0]))
        self._waiting.append((lambda: Outcome(None, True) if self._has_ended else None, answer))


def _expect(params: list[Any], *counts: int) -> None:
    if len(params) not in counts:
        raise TypeError(f"found {len(params)} params, expected {' or '.join(map(str, counts))}")


def _new_number(asked: Any, present: int) -> int:
    """Compute the number of workers from ``N``, ``+N`` or ``-N``. Raises ValueError."""
    text = str(asked) if type(asked) is int else asked
    if not isinstance(text, str) or not re.fullmatch(r"[+-]?[0-9]{1,4}", text):
        raise ValueError(f"found {text!r:.40}, expected a number of workers: N, +N or -N")
    number = present + int(text) if text[0] in "+-" else int(text)
    if not 1 <= number <= MOST_WORKERS:
        raise ValueError(f"found {number} workers, expected 1 to {MOST_WORKERS}")
    return number
