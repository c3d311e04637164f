"""Remind-You's file of plugins: each entry is a section; each fault has its line."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from rpccluster.config import Configuration, Machine, Sources, load
from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.errors import ConfigError

MACHINE = Machine(euid=0, egid=0, allowed_cpus=lambda: {0})
ENTRY: dict[str, Any] = {"name": "dict", "desc": "words", "fileName": "dict_plugin", "args": "test"}


def loaded(folder: Path, text: str, place: str = "plugins/conf.json") -> Configuration:
    """The configuration of a cluster without a service that includes ``text``."""
    path = folder / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    (folder / "x.ini").write_text(f"[cluster]\ninclude = {place}\n[plugin:own]\nrun = a:b\n")
    return load(Sources("x.ini", start_folder=str(folder)), MACHINE)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loaded(folder, text)
    return raised.value.faults


def test_an_entry_is_a_plugin(tmp_path: Path) -> None:
    """The folder above `plugins/` holds its module, or one of its file's name alone."""
    found = loaded(tmp_path, json.dumps({"plugins": [ENTRY]}, indent=4))
    assert found.others["plugin:dict"] == PluginOptions(
        description="words",
        run="plugins.dict_plugin:run",
        args=("test",),
        pythonpath=(str(tmp_path),),
        also_run="dict_plugin:run",
    )
    assert found.files == (f"{tmp_path}/x.ini", f"{tmp_path}/plugins/conf.json")
    origins = [str(found.origin(key, "plugin:dict")) for key in ("description", "run", "args", "restart")]
    assert origins == [f"plugins/conf.json:{line}" for line in (5, 6, 7)] + ["default"]


def test_entries_may_stand_in_a_plain_list_and_elsewhere(tmp_path: Path) -> None:
    """A folder of another name is searched itself."""
    found = loaded(tmp_path, json.dumps([ENTRY, {**ENTRY, "name": "b"}]), "conf.d/x.json").others
    assert list(found) == ["plugin:own", "plugin:dict", "plugin:b"]
    assert found["plugin:b"].pythonpath == (f"{tmp_path}/conf.d",)


@pytest.mark.parametrize("argument", ["", "[1", "5%(x)s", 5, None, True, [1, {"a": []}], {"port": 6666}])
def test_the_argument_is_what_json_says(tmp_path: Path, argument: object) -> None:
    """A text is never parsed again."""
    assert loaded(tmp_path, json.dumps([{**ENTRY, "args": argument}])).others["plugin:dict"].args == (argument,)


def test_without_args_it_is_called_with_none(tmp_path: Path) -> None:
    """As Remind-You does; desc may be missing, too."""
    found = loaded(tmp_path, '[{"name": "d", "fileName": "a.b"}]').others["plugin:d"]
    assert (found.args, found.description, found.run) == ((None,), "", "plugins.a.b:run")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"plugins": [\n  {"name": "x",}\n]}', "2:16: config: found no JSON: "),
        ("", "1:1: config: found no JSON: expecting value"),
        ("[plugin:x]\nrun = a:b\n", "1:2: config: found no JSON: expecting value"),
        ("[" * 100_000, "1: config: found no JSON: "),
        ("5", "1: plugins: found something else, expected a list of plugins"),
        ('\n{"plugins":\n {}}', "3: plugins: found something else, expected a list of plugins"),
        ("{}", "1: plugins: found no such field, expected one"),
        ('{"plugins": [],\n"logFile": "x"}', "2: logFile: found an unknown field, expected plugins"),
        ('{"plugins": [],\n"plugins": []}', "2: plugins: found it again, expected it once"),
        ('[\n"dict"]', "2: plugins: found '\"dict\"', expected an object: a plugin"),
    ],
)
def test_a_file_of_another_form_is_one_fault(tmp_path: Path, text: str, expected: str) -> None:
    """With line and column, where it is no JSON at all."""
    (fault,) = faults(tmp_path, text)
    assert fault.startswith(f"plugins/conf.json:{expected}")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ('"name": "x", "filename": "y"', ["filename: found an unknown field", "fileName: found no such field"]),
        ('"name": "x y", "fileName": "y"', ["name: found the name 'x y', expected letters, digits, - and _"]),
        ('"name": "web", "fileName": "y"', ["name: found the name 'web', which a group has, expected another"]),
        ('"name": "", "fileName": "y"', ["name: found nothing, expected a name"]),
        ('"name": 5, "fileName": null', ["name: found '5', expected text", "fileName: found 'null', expected text"]),
        ('"name": "x", "fileName": "a/b"', ["fileName: found 'a/b', expected the name of a module"]),
        ('"name": "own", "fileName": "y"', ["[plugin:own]: found it again, expected it once: it stands at x.ini:3"]),
        ('"name": "a", "name": "b", "fileName": "y"', ["name: found it again, expected it once"]),
        (
            '"name": "x", "fileName": "y", "desc": "a\\u0000b"',
            ["description: found 'a\\x00b', expected text on one line"],
        ),
    ],
)
def test_what_is_wrong_with_an_entry(tmp_path: Path, entry: str, expected: list[str]) -> None:
    """Unknown, missing and faulty fields, at their line."""
    found = faults(tmp_path, '{"plugins": [\n\n{' + entry + "}]}")
    assert len(found) == len(expected)
    for start in expected:
        assert any(fault.startswith(f"plugins/conf.json:3: {start}") for fault in found), start


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    """The second one is told where the first stands."""
    entry = json.dumps(ENTRY)
    (fault,) = faults(tmp_path, f"[\n{entry},\n{entry}]")
    told = "found it again, expected it once: it stands at plugins/conf.json:2"
    assert fault == f"plugins/conf.json:3: [plugin:dict]: {told}"


@pytest.mark.skipif(platform.python_implementation() == "PyPy", reason="it takes numbers of any length")
def test_a_number_without_end_is_no_json(tmp_path: Path) -> None:
    """Python refuses to read it, where it does."""
    try:
        json.loads("1" * 10_000)
    except ValueError:
        (fault,) = faults(tmp_path, '[{"name": "x", "fileName": "y", "args": ' + "1" * 10_000 + "}]")
        assert fault.startswith("plugins/conf.json:1: config: found no JSON: ")
