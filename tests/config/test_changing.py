"""Values of a configuration in force that a command changes: checked as those of a file, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpccluster.config import Configuration, Machine, Sources, load
from rpccluster.config.changes.changing import commanded, with_values
from rpccluster.config.origin import COMMANDED
from rpccluster.errors import ConfigError

TEXT = """\
[cluster]
service = a:b
pidfile = /tmp/set.pid
number_workers = 2
[settings]
Price = 1
[plugin:x]
run = a:b
env.Path = /x
"""


@pytest.fixture
def running(tmp_path: Path) -> Configuration:
    (tmp_path / "x.ini").write_text(TEXT)
    return load(Sources("x.ini", start_folder=str(tmp_path)), Machine())


def test_options_of_every_section_change(running: Configuration, tmp_path: Path) -> None:
    """By the values that their texts mean; the file is not read again."""
    (tmp_path / "x.ini").write_text("no file of this cluster")
    changed = with_values(
        running,
        {
            "call_timeout": "2",
            "cluster.timeout": "7",
            "settings.Price": "2",
            "settings.new": "",
            "plugin:x.max_memory": "1G",
            "plugin:x.env.Path": "/y",
            "plugin:x.log_file": "x.log",
        },
        Machine(),
    )
    assert (changed.options.call_timeout, changed.options.timeout, changed.options.number_workers) == (2.0, 7.0, 2)
    assert changed.settings(2).texts == {"Price": "2", "new": ""}
    plugin = changed.others["plugin:x"]
    assert (plugin.max_memory, plugin.env, plugin.log_file) == (1 << 30, {"Path": "/y"}, f"{tmp_path}/x.log")
    assert changed.origin("Price", "settings") is changed.origin("timeout") is COMMANDED
    assert changed.origin("number_workers") == running.origin("number_workers")
    assert set(commanded(changed)) == {
        "call_timeout",
        "timeout",
        "plugin:x.max_memory",
        "plugin:x.env.Path",
        "plugin:x.log_file",
    }


def test_a_value_can_be_taken_away(running: Configuration) -> None:
    """An option then has its default."""
    changed = with_values(
        running, {"settings.Price": None, "plugin:x.env.Path": None, "number_workers": "3"}, Machine()
    )
    changed = with_values(changed, {"number_workers": None}, Machine())
    assert (changed.settings(2).texts, changed.others["plugin:x"].env) == ({}, {})
    assert changed.options == load(Sources(flags={"service": "a:b", "pidfile": "/tmp/set.pid"})).options
    assert commanded(changed) == {}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"call_timeot": "2"}, "call_timeot: found an unknown key, expected an option; did you mean call_timeout?"),
        ({"Price": "2"}, "Price: found an unknown key, expected an option; did you mean settings.Price?"),
        ({"call_timeout": "much"}, "call_timeout: found 'much', expected seconds, 0 to"),
        ({"plugin:y.timeout": "2"}, "plugin:y.timeout: found no section [plugin:y], expected one that is there; did"),
        ({"plugin:x.": "2"}, "plugin:x.: found an unknown key"),
        ({"nothing.x": "2"}, "nothing.x: found no section [nothing], expected one"),
        ({"include": "y.ini"}, "include: found a new list of files, expected a reload"),
        ({"pidfile": "/y"}, "pidfile: found /y, expected /tmp/set.pid until the next start: the master holds the lock"),
        ({"service": ""}, "service: found nothing, expected module:Class or module:object"),
        ({"after": "z"}, "after: found 'plugin:z', expected a group or a plugin that is there"),
        ({"plugin:x.command": "ls"}, "plugin:x.run: found it beside command, expected one of them"),
        ({"chdir": "/no/where"}, "chdir: "),
        ({"settings.a": "x\0y"}, "settings.a: found 'x\\x00y', expected text without NUL"),
    ],
)
def test_what_a_file_may_not_say_no_command_may(running: Configuration, changes: dict[str, str], fault: str) -> None:
    """One clear message, with the key among all sections."""
    with pytest.raises(ConfigError) as error:
        with_values(running, {"timeout": "7", **changes}, Machine())
    (told,) = error.value.faults
    assert f": {fault}" in told


def test_faults_that_are_there_already_hinder_nobody(tmp_path: Path) -> None:
    """A folder may have gone since the start."""
    (tmp_path / "gone").mkdir()
    (tmp_path / "x.ini").write_text(f"[cluster]\nservice = a:b\nchdir = {tmp_path}/gone\n")
    running = load(Sources(str(tmp_path / "x.ini")), Machine())
    (tmp_path / "gone").rmdir()
    assert with_values(running, {"timeout": "7"}, Machine()).options.timeout == 7.0
