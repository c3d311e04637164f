"""The methods of values: what they answer, what they refuse at once, and that a change waits its turn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.config import Machine, Sources, load
from rpccluster.errors import StartError
from rpccluster.log import LogFiles
from rpccluster.master.cluster import Cluster
from rpccluster.master.control.settings_operations import SettingsOperations
from rpccluster.master.history import Author, History, Version
from rpccluster.master.phases import Phase


class Asked:
    """A cluster whose changes only note what they were asked for."""

    def __init__(self, folder: Path) -> None:
        (folder / "x.ini").write_text("[cluster]\nservice = a:b\ntimeout = 7\n[settings]\nPrice = 1\n")
        self.cluster = Cluster(
            load(Sources(str(folder / "x.ini")), Machine()), 1, [], LogFiles("", ""), 0.0, phase=Phase.RUNNING
        )
        self.begun: list[Any] = []
        self.change = SimpleNamespace(is_done=False, failure="")
        self.problem: Exception | None = None
        self.reloading = SimpleNamespace(is_under_way=False, change=self._begin)
        commands: Any = SimpleNamespace(
            reloading=self.reloading, new_master=SimpleNamespace(is_under_way=False), phase=Phase.RUNNING
        )
        self.commands = commands
        self.waiting: list[Any] = []
        self.operations = SettingsOperations(self.cluster, commands, lambda check, answer: self.waiting.append(check))

    def _begin(self, changed: Any, options: Any, author: Author, written: Any) -> Any:
        if self.problem is not None:
            raise self.problem
        self.begun.append((dict(changed.settings(0).texts), changed.options.timeout, options, author, written))
        return self.change

    def __call__(self, method: str, *params: Any) -> Any:
        answers: list[Any] = []

        class Answer:
            uid = 1000

            def __call__(self, error: str | None, result: Any) -> None:
                answers.append((error, result))

        answer: Any = Answer()
        self.operations.methods()[f"config.{method}"](list(params), answer)
        return answers[0] if answers else self.look()

    def look(self) -> Any:
        outcome = self.waiting[-1]()
        return outcome and (outcome.error, outcome.result)


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


def test_a_change_waits_its_turn(asked: Asked) -> None:
    """And answers when it is done, or why it is not."""
    asked.reloading.is_under_way = True
    assert asked("set", {"settings.Price": " 2 ", "cluster.timeout": "8"}) is None
    assert not asked.begun
    asked.reloading.is_under_way = False
    assert asked.look() is None
    author = Author("config set settings.Price=2 timeout=8", 1000)
    assert asked.begun == [({"Price": "2"}, 8.0, [("settings", "Price"), ("cluster", "timeout")], author, None)]
    assert asked.look() is None
    asked.change.is_done, asked.cluster.settings_version = True, 2
    assert asked.look() == (None, {"version": 2})
    asked.change.failure = "worker (pid: 7, slot: 0) refuses: no"
    assert asked.look() == ("RuntimeError: worker (pid: 7, slot: 0) refuses: no", None)


def test_what_changes_nothing_is_done(asked: Asked) -> None:
    """The version stays; with ``write`` the file has it afterwards all the same."""
    assert asked("set", {"timeout": "7.0"}) == (None, {"version": 1})
    assert not asked.begun
    assert asked("set", {"timeout": "7.0"}, {"write": True}) is None
    assert asked.begun[0][3].command == "config set timeout=7.0 --write"
    assert asked.begun[0][4].new.endswith(b"timeout = 7.0\n[settings]\nPrice = 1\n")


@pytest.mark.parametrize("wrong", [[], [{}], [[]], [{"timeout": 7}], [{7: "7"}], [{"settings.Price": "a\0b"}], ["x"]])
def test_what_is_no_change_is_told_at_once(asked: Asked, wrong: list[Any]) -> None:
    """Before it waits for anything."""
    with pytest.raises((ValueError, TypeError)):
        asked("set", *wrong)


def test_why_it_cannot_be_now(asked: Asked) -> None:
    """An upgrade, a stop, a fault of the values, files that cannot be opened, a fault of ours."""
    assert asked("set", {"timeout": "x"})[0].startswith("RuntimeError: config set: timeout: found 'x', expected")
    asked.problem = StartError("cannot listen")
    assert asked("set", {"timeout": "8"}) == ("RuntimeError: cannot listen", None)
    asked.problem = KeyError("x")
    assert asked("set", {"timeout": "8"}) == ("KeyError: 'x'", None)
    asked.commands.new_master.is_under_way = True
    assert asked("set", {"timeout": "8"}) == ("RuntimeError: the cluster is upgrading", None)
    asked.commands.new_master.is_under_way = False
    asked.cluster.phase = Phase.STOPPING
    assert asked("set", {"timeout": "8"}) == ("RuntimeError: the cluster is stopping", None)


def test_the_way_back(asked: Asked) -> None:
    """Old texts of what came later; what belongs to a section that has gone is left out."""
    changes = {"settings.Price": ("3", "1"), "settings.new": (None, "x"), "plugin:gone.timeout": ("1", "2")}
    asked.cluster.history = History().with_version(Version(5, "2026-01-02T03:04:05Z", 7, "HUP", changes), {})
    asked.cluster.settings_version = 5
    assert asked("rollback") is None
    assert asked.begun[0][0] == {"Price": "3"}
    assert asked.begun[0][3] == Author("config rollback 4", 1000)
    assert asked("rollback", 2) == ("ArgumentError: found the version 2, expected one of 4 to 5", None)
    for wrong in ("4", True, 1.5):
        with pytest.raises(ValueError, match="expected the number of a version"):
            asked("rollback", wrong)
    assert asked("history") == (
        None,
        {
            "version": 5,
            "versions": [
                {
                    "version": 5,
                    "time": "2026-01-02T03:04:05Z",
                    "uid": 7,
                    "command": "HUP",
                    "changes": {name: list(pair) for name, pair in changes.items()},
                }
            ],
        },
    )


def test_values_are_read_with_their_places(asked: Asked, tmp_path: Path) -> None:
    """One, or all; and what the file says by now."""
    place = {"value": "1", "origin": f"{tmp_path}/x.ini:5"}
    assert asked("get", "settings.Price") == (None, {"version": 1, "values": {"settings.Price": place}})
    assert asked("get", "cluster.timeout")[1]["values"]["timeout"]["value"] == "7"
    with pytest.raises(
        ValueError, match=r"found no key 'timeot', expected one that has a value; did you mean timeout\?"
    ):
        asked("get", "timeot")
    with pytest.raises(ValueError, match=r"found no key 'Price', .*; did you mean settings.Price\?"):
        asked("get", "Price")
    assert asked("diff") == (None, {})
    (tmp_path / "x.ini").write_text("[cluster]\nservice = a:b\n[settings]\nprice = 1\n")
    changed = {"timeout": ["7", "30"], "settings.Price": ["1", None], "settings.price": [None, "1"]}
    assert asked("diff") == (None, changed)
