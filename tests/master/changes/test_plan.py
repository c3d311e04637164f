"""The plan of a reload: the least that makes a running cluster what its configuration says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rpccluster.config import Configuration, Sources, load
from rpccluster.master.changes.plan import Plan, make_plan

from ..made_up import booting, group, ready, retiring

CLUSTER = "[cluster]\nservice = a:b\nnumber_workers = 2\n"


def plugin(name: str, **options: object) -> str:
    return f"[plugin:{name}]\nrun = a:b\n" + "".join(f"{key} = {value}\n" for key, value in options.items())


class Planned:
    """A running cluster whose groups are made up of its configuration, and the plans for other ones."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self.running = self.read(text)
        options = self.running.options
        self.groups = {"workers": group(*(ready(slot) for slot in range(options.number_workers)))}
        for name, own in self.running.others.items():
            slots = range(own.processes)
            self.groups[name] = group(*(ready(slot) for slot in slots), name=name)

    def read(self, text: str) -> Configuration:
        (self.folder / "x.ini").write_text(text)
        return load(Sources("x.ini", start_folder=str(self.folder)), None)

    def plan(self, text: str, *, is_all: bool = False) -> Plan:
        return make_plan(self.running, self.read(text), self.groups.values(), is_all=is_all)

    def lines(self, text: str, *, is_all: bool = False) -> list[str]:
        return list(self.plan(text, is_all=is_all).lines())


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    return Planned(tmp_path, CLUSTER + plugin("a", args=1) + plugin("b", processes=3))


PRESENT = CLUSTER + plugin("a", args=1) + plugin("b", processes=3)


def test_what_has_not_changed_stays(planned: Planned) -> None:
    """Nothing is done, however the file says it."""
    assert planned.lines(PRESENT) == ["kept: 6 processes"]
    assert planned.lines("[DEFAULT]\nargs = 1\n" + PRESENT.replace("args = 1", "# none")) == [
        "changed: plugin:b, args: nothing -> 1",
        "kept: 3 processes",
    ]


def test_plugins_come_go_and_change(planned: Planned) -> None:
    """And each is named with what has changed."""
    text = CLUSTER + plugin("a", args=2, **{"env.X": 5}) + plugin("c")
    assert planned.plan(text).told() == {
        "added": ["plugin:c"],
        "removed": ["plugin:b"],
        "changed": {"plugin:a": {"args": ["1", "2"], "env.X": ["", "5"]}},
        "live": {},
        "kept": 2,
        "lines": [
            "added: plugin:c",
            "removed: plugin:b",
            "changed: plugin:a, args: 1 -> 2, env.X: nothing -> 5",
            "kept: 2 processes",
        ],
    }


def test_a_variable_that_goes_is_a_change(planned: Planned) -> None:
    """As one that comes."""
    planned.running = planned.read(PRESENT + "env.X = 1\n")
    assert planned.lines(PRESENT)[0] == "changed: plugin:b, env.X: 1 -> nothing"


def test_what_the_master_alone_uses_is_applied_live(planned: Planned) -> None:
    """Limits, timeouts and numbers: no process is replaced; those beyond the number go."""
    text = PRESENT.replace("number_workers = 2", "number_workers = 1\ntimeout = 5").replace(
        "processes = 3", "processes = 2"
    )
    assert planned.lines(text) == [
        "applied live: number_workers: 2 -> 1",
        "applied live: timeout: 30 -> 5",
        "applied live: plugin:b.processes: 3 -> 2",
        "kept: 4 processes",
    ]


def test_a_change_of_the_cluster_replaces_the_workers_alone(planned: Planned) -> None:
    """What plugins have from it is fixed when they start."""
    assert planned.lines(PRESENT.replace("[plugin:a]", "chdir = /\n[plugin:a]")) == [
        "changed: workers, chdir: nothing -> /",
        "kept: 4 processes",
    ]


def test_all_workers_may_be_replaced(planned: Planned) -> None:
    """For new code; plugins stay all the same."""
    assert planned.lines(PRESENT, is_all=True) == ["changed: workers", "kept: 4 processes"]


def test_workers_that_an_earlier_reload_has_left_are_replaced(planned: Planned) -> None:
    """Their options are not those of the file, whatever it says now."""
    planned.groups["workers"] = group(ready(0, 2), ready(1, 1), generation=2)
    assert planned.lines(PRESENT) == ["changed: workers", "kept: 4 processes"]
    planned.groups["workers"] = group(ready(0, 2), retiring(1, 1), ready(1, 2), generation=2)
    assert planned.lines(PRESENT) == ["kept: 6 processes"]


def test_a_number_that_was_scaled_by_hand_is_the_files_again(planned: Planned) -> None:
    """The plan shows it."""
    planned.groups["workers"] = group(*(ready(slot) for slot in range(4)))
    planned.groups["plugin:b"].wanted = 5
    assert planned.lines(PRESENT) == [
        "applied live: number_workers: 4 -> 2",
        "applied live: plugin:b.processes: 5 -> 3",
        "kept: 6 processes",
    ]


def test_only_processes_that_fill_their_slot_are_kept(planned: Planned) -> None:
    """Neither those that leave nor slots that wait."""
    planned.groups["plugin:b"] = group(retiring(0), booting(0), ready(1), name="plugin:b", number_workers=3)
    assert planned.lines(PRESENT) == ["kept: 5 processes"]


def test_a_group_that_still_ends_is_none(planned: Planned) -> None:
    """A plugin whose section went and came back is new."""
    planned.running = planned.read(CLUSTER + plugin("a", args=1))
    planned.groups["plugin:b"].is_removed = True
    assert planned.lines(PRESENT) == ["added: plugin:b", "kept: 3 processes"]


def test_what_no_option_shows_may_change_too(planned: Planned, tmp_path: Path) -> None:
    """The folder of a file of plugins in JSON, say."""
    entry = '[{"name": "d", "fileName": "m"}]'
    running: Any = None
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.json").write_text(entry)
        configuration = planned.read(f"{CLUSTER}include = {folder}/x.json\n")
        if running is None:
            running = planned.running = configuration
    planned.groups = {"plugin:d": group(ready(0), name="plugin:d")}
    assert planned.lines(f"{CLUSTER}include = two/x.json\n") == [
        "changed: plugin:d",
        "applied live: include: one/x.json -> two/x.json",
        "kept: 0 processes",
    ]
