"""A section of its own file: declared beside ``[cluster]``, read, checked and shown without a change to the readers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from rpccluster.config import Configuration, Effect, Machine, Section, Sources, load, refused_changes, reload, values
from rpccluster.config.checks import Complaint
from rpccluster.config.sections import SECTIONS, section_of
from rpccluster.config.sections.option import compute_defaults, computed, option
from rpccluster.errors import ConfigError

MACHINE = Machine(euid=0, egid=0, allowed_cpus=lambda: {0})


@dataclass(frozen=True)
class Things:
    """The options of a made-up section."""

    command: str = option(values.NAME, "", "what it is")
    number: int = option(values.integer(0), 1, "how many", effect=Effect.RESTART)
    twice: int = computed(values.integer(0), lambda things: 2 * things.number, "twice number", "twice as many")
    backlog: int = option(values.integer(0), 5, "a key that [cluster] has, too")

    def __post_init__(self) -> None:
        compute_defaults(self)


def complaints(things: Things, machine: Machine, config_path: str | None) -> list[Complaint]:
    """Complain of thirteen things."""
    return [Complaint(("number",), "found 13, expected less")] if things.number == 13 else []


@pytest.fixture(autouse=True)
def thing(monkeypatch: pytest.MonkeyPatch) -> None:
    """``[thing:NAME]`` exists for a test."""
    monkeypatch.setitem(SECTIONS, "thing", Section("thing", Things, complaints, ("command",), is_named=True))


def loaded(folder: Path, text: str) -> Configuration:
    """The configuration that a file with ``text`` makes."""
    (folder / "x.ini").write_text(text)
    return load(Sources("x.ini", start_folder=str(folder)), MACHINE)


def faults(folder: Path, text: str) -> list[str]:
    """What is wrong with it."""
    with pytest.raises(ConfigError) as raised:
        loaded(folder, text)
    return raised.value.faults


CLUSTER = "[cluster]\nservice = a:b\n"


def test_each_header_makes_options_of_its_own(tmp_path: Path) -> None:
    """As many as there are names; defaults and interpolation work in them as in [cluster]."""
    text = "[thing:a]\ncommand = %(here)s/%(who)s\n[thing:b]\ncommand = y\nnumber = 4\n"
    found = loaded(tmp_path, "[DEFAULT]\nwho = all\n" + CLUSTER + text)
    assert found.options.service == "a:b"
    assert found.others == {"thing:a": Things(f"{tmp_path}/all", 1, 2), "thing:b": Things("y", 4, 8)}


def test_a_shared_value_reaches_every_section_that_knows_the_key(tmp_path: Path) -> None:
    """And what a section says itself overrides it there alone."""
    found = loaded(tmp_path, f"[DEFAULT]\nbacklog = 7\n{CLUSTER}[thing:a]\ncommand = x\nbacklog = 8\n")
    assert (found.options.backlog, found.others["thing:a"].backlog) == (7, 8)
    assert [str(found.origin("backlog", header)) for header in ("cluster", "thing:a")] == ["x.ini:2", "x.ini:7"]


def test_every_fault_of_every_section_has_its_line(tmp_path: Path) -> None:
    """Unknown keys with a suggestion, values, missing keys, and what the section's own checks find."""
    known = (
        "expected [cluster], [settings], [plugin:NAME], [pool:NAME], [queues], [queue:NAME], [leadership], [access], "
        "[metrics], [web], [thing:NAME] or [DEFAULT]"
    )
    assert faults(
        tmp_path,
        CLUSTER
        + "[thing:a]\ncomand = x\n"
        + "[thing:b]\ncommand = x\nnumber = many\n"
        + "[thing:c]\ncommand = x\nnumber = 13\n"
        + "[thing]\n[thing:]\n[other]\n",
    ) == [
        "x.ini:3: command: found nothing, expected a name on one line",
        "x.ini:4: comand: found an unknown key, expected an option; did you mean command?",
        "x.ini:7: number: found 'many', expected a whole number, 0 or more",
        "x.ini:10: number: found 13, expected less",
        f"x.ini:11: [thing]: found an unknown section, {known}",
        f"x.ini:12: [thing:]: found an unknown section, {known}",
        f"x.ini:13: [other]: found an unknown section, {known}",
    ]


def test_a_fault_of_one_section_hides_none_of_another(tmp_path: Path) -> None:
    """A key may stand in both."""
    found = faults(tmp_path, f"{CLUSTER}number = 1\n[thing:a]\ncommand = x\nnumber = 13\n")
    assert [fault.split(": ")[:2] for fault in found] == [["x.ini:3", "number"], ["x.ini:6", "number"]]


def test_what_only_a_restart_changes_is_refused_by_a_hup(tmp_path: Path) -> None:
    """In a section that was there before; sections may come and go."""
    running = loaded(tmp_path, f"{CLUSTER}[thing:a]\ncommand = x\n")
    changed = loaded(tmp_path, f"{CLUSTER}[thing:a]\ncommand = y\nnumber = 2\n[thing:b]\ncommand = z\nnumber = 3\n")
    told = ["x.ini:5: number: found 2, expected 1 until the next start"]
    assert [str(fault) for fault in refused_changes(running, changed)] == told
    assert refused_changes(changed, loaded(tmp_path, CLUSTER)) == []


def test_such_a_change_is_told_beside_other_faults(tmp_path: Path) -> None:
    """But not what stands at its default by a fault of its own."""
    running = loaded(tmp_path, f"{CLUSTER}[thing:a]\ncommand = x\nnumber = 2\n[thing:b]\ncommand = x\nnumber = 2\n")
    changed = "backlog = no\n[thing:a]\ncommand = x\nnumber = 3\n[thing:b]\ncommand = x\nnumber = many\n"
    (tmp_path / "x.ini").write_text(CLUSTER + changed)
    with pytest.raises(ConfigError) as raised:
        reload(running, MACHINE)
    assert [fault.split(": ")[:2] for fault in raised.value.faults] == [
        ["x.ini:3", "backlog"],
        ["x.ini:6", "number"],
        ["x.ini:9", "number"],
    ]


def test_all_are_shown_with_their_origins(tmp_path: Path) -> None:
    """Those of [cluster] by their keys, the others by header and key."""
    shown = {
        key: (text, origin) for key, text, origin in loaded(tmp_path, f"{CLUSTER}[thing:a]\ncommand = x\n").describe()
    }
    assert shown["service"] == ("a:b", "x.ini:2")
    assert shown["thing:a.command"] == ("x", "x.ini:4")
    assert shown["thing:a.number"] == ("1", "default")


@pytest.mark.parametrize(
    ("header", "is_one"), [("cluster", True), ("cluster:x", False), ("cluster:", False), (None, False)]
)
def test_the_cluster_has_no_name(header: str | None, is_one: bool) -> None:
    """There is one."""
    assert bool(section_of(header)) is is_one
