"""The file into which new settings belong, and its new content."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpccluster.config import Sources, load
from rpccluster.config.changes.writing import rewriting
from rpccluster.errors import NotWritten


def test_the_section_tells_the_file(tmp_path: Path) -> None:
    """That which has it, be it an included one; without one the first."""
    main, more = tmp_path / "x.ini", tmp_path / "more.ini"
    main.write_text("[cluster]\nservice = a:b\ninclude = more.ini\n")
    more.write_text("[plugin:x]\nrun = a:b\n")
    running = load(Sources(str(main)))
    change = rewriting(running, {"settings.b": "1", "settings.A": "2"})
    assert (change.path, change.old) == (str(main), main.read_bytes())
    assert change.new == main.read_bytes() + b"\n[settings]\nb = 1\nA = 2\n"
    assert {key: str(place) for key, place in change.places.items()} == {
        "settings.b": f"{main}:6",
        "settings.A": f"{main}:7",
    }
    more.write_text("[settings]\nb = 5\n")
    change = rewriting(load(Sources(str(main))), {"settings.b": "1"})
    assert (change.path, change.new) == (str(more), b"[settings]\nb = 1\n")
    assert str(change.places["settings.b"]) == f"{tmp_path}/more.ini:2"


def test_a_value_that_somebody_has_written_meanwhile_is_kept(tmp_path: Path) -> None:
    """It was not read yet. One that a command has set may be written."""
    main = tmp_path / "x.ini"
    main.write_text("[cluster]\nservice = a:b\n[settings]\nb = 5\n")
    running = load(Sources(str(main)))
    assert rewriting(running.with_settings({"b": "6"}), {"settings.b": "7"}).new.endswith(b"\nb = 7\n")
    main.write_text("[cluster]\nservice = a:b\n[settings]\nb = 8\nc = 1\n")
    for key, told in (("b", "4: b: found '8', expected '5'"), ("c", "5: c: found '1', expected nothing")):
        with pytest.raises(NotWritten, match=f"{main}:{told}: it has changed since it was read; reload first"):
            rewriting(running, {f"settings.{key}": "7"})


def test_without_a_readable_file_there_is_nothing_to_write(tmp_path: Path) -> None:
    """A cluster may run by flags alone; a file may have become faulty."""
    with pytest.raises(NotWritten, match="the cluster has no configuration file"):
        rewriting(load(Sources(flags={"service": "a:b"})), {"settings.b": "7"})
    main = tmp_path / "x.ini"
    main.write_text("[cluster]\nservice = a:b\n")
    running = load(Sources(str(main)))
    main.write_text("[cluster]\nservice\n")
    with pytest.raises(NotWritten, match=f"{main}:2: service: found 'service', expected KEY = VALUE"):
        rewriting(running, {"settings.b": "7"})


def test_options_are_written_too(tmp_path: Path) -> None:
    """Into the file of their section, by what they mean: a value in another form is the same."""
    main, more = tmp_path / "x.ini", tmp_path / "more.ini"
    main.write_text("[cluster]\nservice = a:b\nMax_Message_Size: 1024K\ninclude = more.ini\n")
    more.write_text("[plugin:x]\nrun = a:b\nenv.Path = /x\n")
    running = load(Sources(str(main)))
    change = rewriting(running, {"max_message_size": "2M"})
    assert change.new == main.read_bytes().replace(b"1024K", b"2M")
    assert str(change.places["max_message_size"]) == f"{main}:3"
    change = rewriting(running, {"plugin:x.env.Path": "/y", "plugin:x.timeout": "7"})
    assert (change.path, change.new) == (str(more), b"[plugin:x]\nrun = a:b\nenv.Path = /y\ntimeout = 7\n")
    with pytest.raises(NotWritten, match="expected one file's"):
        rewriting(running, {"plugin:x.timeout": "7", "call_timeout": "1"})


def test_what_a_file_does_not_decide_is_not_written(tmp_path: Path) -> None:
    """A flag or the environment would win; a form other than INI has no lines."""
    main = tmp_path / "x.ini"
    main.write_text("[cluster]\nservice = a:b\ninclude = plugins/conf.json\nnumber_workers = 2\n")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "conf.json").write_text('[{"name": "x", "fileName": "x", "args": 1}]')
    for sources, origin in (
        (Sources(str(main), flags={"number_workers": "3"}), "flag --workers"),
        (Sources(str(main), environment={"number_workers": "3"}), "RPCCLUSTER_CMD_ARGS"),
    ):
        with pytest.raises(NotWritten, match=f"{origin}: number_workers: found a value that overrides the file"):
            rewriting(load(sources), {"number_workers": "4"})
    with pytest.raises(NotWritten, match="json, expected an INI file's"):
        rewriting(load(Sources(str(main))), {"plugin:x.timeout": "4"})
