"""The control socket's methods: what each asks for, and when it answers."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.config.cpus import MOST_WORKERS
from rpccluster.master.control.operations import Operations
from rpccluster.master.phases import Phase
from rpccluster.master.pieces import Pieces, Work
from rpccluster.protocol.codec import Encoded, unpack

STATUS = {"pid": 7, "groups": [{"name": "workers", "kind": "rpc"}, {"name": "plugin:a", "kind": "plugin"}]}


class MadeUpMaster:
    """A cluster, its commands and the system, that only note what they are told."""

    def __init__(self) -> None:
        self.time = 10.0
        self.told: list[Any] = []
        self.is_settled = False
        self.system = SimpleNamespace(monotonic=lambda: self.time, getpid=lambda: 7)
        self.cluster = SimpleNamespace(generation=1, phase=Phase.RUNNING, options=SimpleNamespace(service="a:b"))
        self.workers = SimpleNamespace(
            name="workers",
            wanted=2,
            failed_at=0.0,
            failure="",
            children=["a worker"],
            is_settled=lambda: self.is_settled,
        )
        self.groups = SimpleNamespace(all=[], named=lambda name: None, wake=lambda: None)
        self.reloading = SimpleNamespace(
            is_complete=True,
            failure="",
            outcome=lambda: {"generation": self.cluster.generation},
            preview=lambda is_all: {"all": is_all},
        )
        self.new_master = SimpleNamespace(is_complete=True, failure="", pid=0, refusal=lambda: self.refusal)
        self.refusal = ""
        self.broker = SimpleNamespace(is_uneven=True, even_out=lambda: self.told.append("rebalance"))
        self.commands = SimpleNamespace(
            workers=self.workers,
            reloading=self.reloading,
            new_master=self.new_master,
            scale=self._scale,
            reload=lambda is_all, author: self._begin(self.reloading, "reload all" if is_all else "reload"),
            upgrade=lambda: self._begin(self.new_master, "upgrade"),
            stop=lambda is_quick: self.told.append(("stop", is_quick)),
        )

    def _scale(self, number: int) -> None:
        self.told.append(("scale", number))
        self.workers.wanted = number

    def _begin(self, part: Any, name: str) -> None:
        self.told.append(name)
        part.is_complete = False


class NotedAnswer:
    """An answer that only notes what it was called with; its caller may go."""

    def __init__(self, answers: list[tuple[str | None, Any]]) -> None:
        self._answers = answers
        self.is_awaited = True
        self.uid = 1000

    def __call__(self, error: str | None, result: Any) -> None:
        self._answers.append((error, unpack(result) if type(result) is Encoded else result))


class Asked:
    """Operations and the answers they have given."""

    def __init__(self) -> None:
        self.master: Any = MadeUpMaster()
        self.operations = Operations(
            self.master.system,
            self.master.cluster,
            self.master.groups,
            self.master.commands,
            self.master.broker,
            Pieces(),
            self.make_status,
            self.ask_for_queues,
        )
        self.answers: list[tuple[str | None, Any]] = []
        self.status: Any = STATUS
        self.asked_for_queues: list[Any] = []

    def make_status(self) -> Work[dict[str, Any]]:
        """Make it in one step."""
        yield 1
        return copy.deepcopy(self.status)

    def ask_for_queues(self, told: Any) -> None:
        """Note who waits for the counts of the queues."""
        self.asked_for_queues.append(told)

    def __call__(self, method: str, *params: Any) -> list[tuple[str | None, Any]]:
        self.answer: Any = NotedAnswer(self.answers)
        self.operations.methods()[method](list(params), self.answer)
        return self.look()

    def look(self) -> list[tuple[str | None, Any]]:
        self.operations.answer_what_is_done()
        return self.answers


@pytest.fixture
def asked() -> Asked:
    """A master and its operations."""
    return Asked()


def test_status_and_ping_answer_at_once(asked: Asked) -> None:
    """There is nothing to wait for."""
    assert asked("status") == [(None, STATUS)]
    assert asked.asked_for_queues == []
    assert asked("rpc.ping")[-1] == (None, "pong")


@pytest.mark.parametrize("counts", [[{"name": "jobs", "ready": 2}], None], ids=["they come", "they do not"])
def test_status_waits_for_the_counts_of_the_queues(asked: Asked, counts: Any) -> None:
    """The keeper is asked for them, if there is one; without its answer they are null."""
    asked.status = {"groups": [{"name": "workers"}, {"name": "queues"}]}
    assert asked("status") == []
    asked.asked_for_queues[0](counts)
    assert asked.answers == [(None, {"groups": [{"name": "workers"}, {"name": "queues", "queues": counts}]})]


@pytest.mark.parametrize(
    ("asked_for", "wanted"), [("3", 3), (3, 3), ("+2", 4), ("-1", 1), ("0003", 3), (str(MOST_WORKERS), MOST_WORKERS)]
)
def test_scale_answers_when_it_is_so(asked: Asked, asked_for: Any, wanted: int) -> None:
    """N, +N, -N; as text or number."""
    assert asked("scale", asked_for) == []
    assert asked.master.told == [("scale", wanted)]
    asked.master.is_settled = True
    assert asked.look() == [(None, {"number_workers": wanted})]
    assert asked.look() == [(None, {"number_workers": wanted})]


@pytest.mark.parametrize(
    "bad", ["", "x", "1.5", "+", "--1", "0", "-2", "+9999", "99999", 513, 0, None, True, 1.0, [], "１", "1\n"]
)
def test_scale_refuses_what_is_no_number_of_workers(asked: Asked, bad: Any) -> None:
    """And changes nothing."""
    with pytest.raises(ValueError, match="expected"):
        asked("scale", bad)
    assert asked.master.told == []


def test_scale_tells_that_it_was_overtaken(asked: Asked) -> None:
    """By another one, or by a stop."""
    asked("scale", 3)
    asked.master.workers.wanted = 5
    assert asked.look() == [("RuntimeError: overtaken: 5 workers are wanted now", None)]


def test_scale_tells_that_the_cluster_was_drained(asked: Asked) -> None:
    """It would wait for ever for workers that nobody wants."""
    asked("scale", 3)
    asked.master.cluster.phase = Phase.DRAINED
    assert asked.look() == [("RuntimeError: overtaken: the cluster is drained", None)]


def test_scale_tells_that_a_worker_could_not_boot(asked: Asked) -> None:
    """Only of failures since it was asked for."""
    asked.master.workers.failed_at, asked.master.workers.failure = 5.0, "old"
    assert asked("scale", 3) == []
    asked.master.workers.failed_at, asked.master.workers.failure = 11.0, "ImportError: x"
    assert asked.look() == [("RuntimeError: a worker could not boot: ImportError: x", None)]


@pytest.mark.parametrize(
    ("method", "part", "result"),
    [("reload", "reloading", {"generation": 2}), ("upgrade", "new_master", {"pid": 99})],
)
@pytest.mark.parametrize("reason", ["", "a fault"])
def test_long_ones_answer_when_they_have_ended(
    asked: Asked, method: str, part: str, result: dict[str, int], reason: str
) -> None:
    """Well, or with the reason."""
    assert asked(method) == []
    assert asked.look() == []
    asked.master.cluster.generation, asked.master.new_master.pid = 2, 99
    change = getattr(asked.master, part)
    change.is_complete, change.failure = True, reason
    assert asked.look() == [(f"RuntimeError: {reason}", None) if reason else (None, result)]


def test_rebalance_answers_when_the_counts_are_even(asked: Asked) -> None:
    """Not before."""
    assert asked("rebalance") == []
    assert asked.master.told == ["rebalance"]
    asked.master.broker.is_uneven = False
    assert asked.look() == [(None, True)]


@pytest.mark.parametrize(("params", "is_quick"), [([], False), ([False], False), ([True], True)])
def test_stop_answers_when_all_is_given_back(asked: Asked, params: list[Any], is_quick: bool) -> None:
    """At the master's end, not when the workers are gone; ``true`` means now."""
    assert asked("stop", *params) == []
    assert asked.master.told == [("stop", is_quick)]
    asked.master.workers.children = []
    assert asked.look() == []
    asked.operations.end()
    assert asked.answers == [(None, True)]


def test_the_masters_end_answers_everyone(asked: Asked) -> None:
    """A stop is done then; what was not, never will be."""
    asked("scale", 3)
    asked("stop")
    asked.master.workers.children = []
    asked.operations.end()
    assert asked.answers == [("RuntimeError: the master has stopped", None), (None, True)]
    asked.operations.end()
    assert len(asked.answers) == 2


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("status", [1]),
        ("reload", [{}, 1]),
        ("upgrade", [None]),
        ("scale", []),
        ("scale", [1, 2, 3]),
        ("stop", [True, 1]),
    ],
)
def test_a_wrong_number_of_params_is_refused(asked: Asked, method: str, params: list[Any]) -> None:
    """Before anything is done."""
    with pytest.raises(TypeError, match=f"found {len(params)} params, expected"):
        asked(method, *params)
    assert asked.master.told == []


def test_a_reload_takes_what_has_changed_or_all_or_only_plans(asked: Asked) -> None:
    """Nothing is begun for a plan."""
    assert asked("reload", {"plan": True, "all": True}) == [(None, {"all": True})]
    assert asked.master.told == []
    asked("reload", {})
    asked("reload", {"all": True, "plan": False})
    assert asked.master.told == ["reload", "reload all"]
    for wrong in (1, ["all"], {"al": True}):
        with pytest.raises(ValueError, match="expected an object with all, plan, or neither"):
            asked("reload", wrong)


@pytest.mark.parametrize("method", ["reload", "rebalance", "upgrade", "stop"])
def test_an_answer_that_nobody_awaits_is_forgotten(asked: Asked, method: str) -> None:
    """Whoever asks and goes, again and again, must not make the master remember it."""
    for _ in range(50):
        asked(method)
        asked.answer.is_awaited = False
    asked.look()
    assert asked.operations._waiting == []


@pytest.mark.parametrize(("method", "params"), [("scale", ["3"]), ("reload", []), ("rebalance", []), ("stop", [])])
def test_a_master_that_leaves_refuses_aloud(asked: Asked, method: str, params: list[Any]) -> None:
    """What it did would be undone by the new master; what it tells is still true."""
    asked.master.refusal = "the new master (pid: 9) has taken over: ask that one"
    assert asked(method, *params) == [("RuntimeError: the new master (pid: 9) has taken over: ask that one", None)]
    assert asked.master.told == []
    assert asked("status")[1][0] is None


def test_plugins_are_listed_as_status_has_them(asked: Asked) -> None:
    """And nothing else is."""
    assert asked("plugin.list") == [(None, [{"name": "plugin:a", "kind": "plugin"}])]


def test_a_tail_goes_on_while_an_upgrade_is_completed(asked: Asked) -> None:
    """As it changes nothing, it is not refused: `plugin tail -f` asks again and again. Here there is no plugin."""
    asked.master.refusal = "an upgrade is just being completed: ask again"
    with pytest.raises(ValueError, match="found no plugin"):
        asked("plugin.tail", "a")


def test_a_scale_that_was_passed_on_is_told(asked: Asked) -> None:
    """It is not done, and not lost either."""
    asked("scale", "3")
    asked.master.cluster.phase = Phase.LEAVING
    assert asked.look() == [("RuntimeError: passed on to a new master, which has taken over", None)]
