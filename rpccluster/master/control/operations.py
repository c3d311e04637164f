"""The methods of the control socket: what each does, and when it is done. Runs in the master.

A method answers when its work is done; until then its answer waits here with a check of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Protocol

from rpccluster.errors import StartError
from rpccluster.master.cluster import Cluster
from rpccluster.master.control.commands import Commands
from rpccluster.master.control.group_operations import Check, GroupOperations, Outcome, expect, new_number
from rpccluster.master.control.server import Answer, Method
from rpccluster.master.handover.broker import Broker
from rpccluster.master.history import Author
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.plugins.plugin import Plugin
from rpccluster.master.pieces import Pieces, Work
from rpccluster.master.resources.service_listeners import QUEUES
from rpccluster.protocol.codec import encoded
from rpccluster.system import System

__all__ = ["Operations"]


class Change(Protocol):
    """A reload or an upgrade; ``failure`` is why the last one failed, empty if it went well."""

    failure: str

    @property
    def is_complete(self) -> bool:
        """Whether it has succeeded or failed."""


class Operations:
    """The methods, and the answers that still wait."""

    def __init__(
        self,
        system: System,
        cluster: Cluster,
        groups: Groups,
        commands: Commands,
        broker: Broker,
        pieces: Pieces,
        status: Callable[[], Work[dict[str, Any]]],
        count_queues: Callable[[Callable[[Any], object]], object],
    ) -> None:
        """``pieces`` make long answers, among them ``status``, which is the contract's.

        ``count_queues`` asks for what it says of queues.
        """
        self._system = system
        self._cluster = cluster
        self._workers = commands.workers
        self._pieces = pieces
        self._make_status = status
        self._count_queues = count_queues
        self._commands = commands
        self._broker = broker
        self._of_groups = GroupOperations(system, groups, commands.new_master, self.wait)
        self._waiting: list[tuple[Check, Answer]] = []
        self._has_ended = False
        self._added: dict[str, Method] = {}
        self._readings: dict[str, Method] = {}

    def methods(self) -> Mapping[str, Method]:
        """Return the methods by their names."""
        return {
            "status": self._status,
            "plugin.list": self._list_plugins,
            **self._of_groups.readings(),
            **self._readings,
            "scale": self._while_ours(self._scale),
            "reload": self._while_ours(self._reload),
            "rebalance": self._while_ours(self._rebalance),
            "upgrade": self._upgrade,
            "stop": self._while_ours(self._stop),
            **{name: self._while_ours(method) for name, method in self._of_groups.methods().items()},
            **{name: self._while_ours(method) for name, method in self._added.items()},
            "rpc.ping": lambda params, answer: answer(None, "pong"),
        }

    def add(self, methods: Mapping[str, Method]) -> None:
        """Offer ``methods``, too, while this master is not leaving."""
        self._added.update(methods)

    def add_readings(self, methods: Mapping[str, Method]) -> None:
        """Offer ``methods``, too, at any time, since they change nothing."""
        self._readings.update(methods)

    def _while_ours(self, method: Method) -> Method:
        """Wrap ``method`` to refuse it while this master completes an upgrade or leaves."""

        def ask(params: list[Any], answer: Answer) -> None:
            reason = self._commands.new_master.refusal()
            if reason:
                answer(f"RuntimeError: {reason}", None)
            else:
                method(params, answer)

        return ask

    def wait(self, check: Check, answer: Answer) -> None:
        """Answer as soon as ``check`` returns an outcome."""
        self._waiting.append((check, answer))

    def answer_what_is_done(self) -> None:
        """Send the answers that are due, and make a piece of a long one; called after every turn of the loop."""
        self._pieces.turn()
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
        self._pieces.end()
        for check, answer in self._waiting:
            outcome = check() or Outcome("RuntimeError: the master has stopped")
            answer(outcome.error, outcome.result)
        self._waiting = []

    def _status(self, params: list[Any], answer: Answer) -> None:
        expect(params, 0)

        def tell(told: dict[str, Any]) -> None:
            keeper = next((group for group in told["groups"] if group["name"] == QUEUES), None)
            if keeper is None:
                answer(None, encoded(told))
                return

            def add(counts: Any) -> None:
                keeper["queues"] = counts
                answer(None, encoded(told))

            self._count_queues(add)

        self._pieces.begin(self._make_status(), answer, tell)

    def _list_plugins(self, params: list[Any], answer: Answer) -> None:
        expect(params, 0)

        def tell(told: dict[str, Any]) -> None:
            answer(None, encoded([group for group in told["groups"] if group["kind"] == Plugin.name]))

        self._pieces.begin(self._make_status(), answer, tell)

    def _scale(self, params: list[Any], answer: Answer) -> None:
        """Change the number of the workers, or of the group that is named first."""
        expect(params, 1, 2)
        if len(params) == 2 and params[0] != self._workers.name:
            self._of_groups.scale(params[0], params[1], answer)
        else:
            self._scale_workers(params[-1], answer)

    def _scale_workers(self, number: Any, answer: Answer) -> None:
        cluster, workers = self._cluster, self._workers
        if not cluster.options.service:
            raise ValueError("found no workers, expected a cluster with a service")
        wanted = new_number(number, workers.wanted, "workers")
        began = self._system.monotonic()
        self._commands.scale(wanted)

        def check() -> Outcome | None:
            if cluster.phase.allows.hands_over:
                return Outcome("RuntimeError: passed on to a new master, which has taken over")
            if workers.wanted != wanted or cluster.phase.allows.ends_when_empty:
                return Outcome(f"RuntimeError: overtaken: {workers.wanted} workers are wanted now")
            if not cluster.phase.allows.wants_children:
                return Outcome(f"RuntimeError: overtaken: the cluster is {cluster.phase.value}")
            if workers.failed_at > began:
                return Outcome(f"RuntimeError: a worker could not boot: {workers.failure}")
            return Outcome(None, {"number_workers": wanted}) if workers.is_settled() else None

        self.wait(check, answer)

    def _reload(self, params: list[Any], answer: Answer) -> None:
        expect(params, 0, 1)
        how, reloading = params[0] if params else {}, self._commands.reloading
        if not isinstance(how, dict) or how.keys() - {"all", "plan"}:
            raise ValueError("found something else, expected an object with all, plan, or neither")
        is_all = bool(how.get("all"))
        if not how.get("plan"):
            self._commands.reload(is_all=is_all, author=Author("reload --all" if is_all else "reload", answer.uid))
            self._answer_after(reloading, reloading.outcome, answer)
            return
        try:
            answer(None, reloading.preview(is_all=is_all))
        except StartError as error:
            answer(f"RuntimeError: {error}", None)

    def _rebalance(self, params: list[Any], answer: Answer) -> None:
        expect(params, 0)
        broker = self._broker
        broker.even_out()
        self.wait(lambda: None if broker.is_uneven else Outcome(None, True), answer)

    def _upgrade(self, params: list[Any], answer: Answer) -> None:
        expect(params, 0)
        self._commands.upgrade()
        new_master = self._commands.new_master
        self._answer_after(new_master, lambda: {"pid": new_master.pid}, answer)

    def _answer_after(self, change: Change, result: Callable[[], Any], answer: Answer) -> None:
        def check() -> Outcome | None:
            if not change.is_complete:
                return None
            return Outcome(f"RuntimeError: {change.failure}") if change.failure else Outcome(None, result())

        self.wait(check, answer)

    def _stop(self, params: list[Any], answer: Answer) -> None:
        expect(params, 0, 1)
        self._commands.stop(is_quick=bool(params and params[0]))
        self.wait(lambda: Outcome(None, True) if self._has_ended else None, answer)
