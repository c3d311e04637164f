"""Included files: patterns, order, a [DEFAULT] and faults of their own, and sections that stand once."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpccluster.config import Configuration, Machine, Sources, load
from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.errors import ConfigError

MACHINE = Machine(euid=0, egid=0, allowed_cpus=lambda: {0})


def write(folder: Path, **files: str) -> Path:
    """Write files; ``__`` stands for a slash, and ``main`` is what includes."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.ini"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def loaded(folder: Path) -> Configuration:
    return load(Sources("main.ini", start_folder=str(folder)), MACHINE)


def faults(folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loaded(folder)
    return raised.value.faults


def main(include: str, more: str = "") -> str:
    return f"[cluster]\nservice = a:b\ninclude = {include}\n{more}"


def plugin(name: str, more: str = "run = a:b\n") -> str:
    return f"[plugin:{name}]\n{more}"


def test_patterns_are_sorted_and_begin_beside_the_file(tmp_path: Path) -> None:
    """In the order of the patterns; a file that two of them match is read once; hidden ones need their dot."""
    text = main("conf.d/z*.ini, conf.d/*.ini, conf.d/*.none", plugin("own"))
    write(tmp_path, main=text, conf__b=plugin("no"))
    write(tmp_path, **{"conf.d__z": plugin("z"), "conf.d__b": plugin("b"), "conf.d__a": plugin("a")})
    write(tmp_path, **{"conf.d__.hidden": plugin("hidden")})
    found = loaded(tmp_path)
    assert list(found.others) == ["plugin:own", "plugin:z", "plugin:a", "plugin:b"]
    assert found.files == tuple(f"{tmp_path}/{name}.ini" for name in ("main", "conf.d/z", "conf.d/a", "conf.d/b"))
    assert str(found.origin("run", "plugin:z")) == "conf.d/z.ini:2"


def test_paths_are_shown_as_the_user_wrote_the_first(tmp_path: Path) -> None:
    """The folder of the file that includes stands before them; an absolute pattern stays what it is."""
    write(tmp_path, etc__main=main(f"*.inc, {tmp_path}/x/*.ini"), x__y=plugin("y"))
    (tmp_path / "etc" / "z.inc").write_text(plugin("z"))
    found = load(Sources("etc/main.ini", start_folder=str(tmp_path)), MACHINE)
    assert str(found.origin("run", "plugin:z")) == "etc/z.inc:2"
    assert str(found.origin("run", "plugin:y")) == f"{tmp_path}/x/y.ini:2"


def test_each_file_has_its_own_shared_values_and_folder(tmp_path: Path) -> None:
    """What one file's [DEFAULT] says reaches the sections of that file alone, `%(here)s` is where it lies."""
    shared = "[DEFAULT]\nwho = {0}\nprocesses = {1}\n"
    write(
        tmp_path, main=shared.format("main", 2) + main("x/*.ini", plugin("own", "run = a:b\nargs = %(here)s %(who)s"))
    )
    write(tmp_path, x__y=shared.format("y", 3) + plugin("y", "run = a:b\nargs = %(here)s %(who)s"), x__z=plugin("z"))
    found = loaded(tmp_path).others
    assert found["plugin:own"] == PluginOptions(run="a:b", args=(f"{tmp_path} main",), processes=2)
    assert found["plugin:y"] == PluginOptions(run="a:b", args=(f"{tmp_path}/x y",), processes=3)
    assert found["plugin:z"] == PluginOptions(run="a:b")


def test_the_name_of_another_files_shared_value_is_unknown(tmp_path: Path) -> None:
    """Also the name of an option that no section of its file has."""
    write(tmp_path, main="[DEFAULT]\nwho = %(here)s\n" + main("x/y.ini") + "chdir = %(who)s\n")
    write(tmp_path, x__y="[DEFAULT]\nbacklog = 5\n" + plugin("y", "run = a:b\nargs = %(who)s\n"))
    assert faults(tmp_path) == [
        "x/y.ini:2: backlog: found a name that nothing uses, expected an option, or a name that some value refers to",
        "x/y.ini:5: args: found %(who)s, expected a name of [DEFAULT] or here",
    ]


def test_all_faults_of_all_files_come_at_once_in_the_order_of_files(tmp_path: Path) -> None:
    """Each with its own file and line."""
    write(
        tmp_path, main=main("x/*.ini", "nosuch = 1\n"), x__b=plugin("b", "runn = a:b\n"), x__a="[plugin:a]\nrun = a\n"
    )
    assert [fault.partition(": found")[0] for fault in faults(tmp_path)] == [
        "main.ini:4: nosuch",
        "x/a.ini:2: run",
        "x/b.ini:1: run",
        "x/b.ini:2: runn",
    ]


def test_a_section_stands_once_over_all_files(tmp_path: Path) -> None:
    """[cluster] too, and nothing of the second one counts."""
    write(tmp_path, main=main("x/*.ini", plugin("p")))
    write(tmp_path, x__a=plugin("p", "command = nosuchprogram\n"), x__b="[cluster]\nservice = c:d\ninclude = *.ini\n")
    assert faults(tmp_path) == [
        "x/a.ini:1: [plugin:p]: found it again, expected it once: it stands at main.ini:4",
        "x/b.ini:1: [cluster]: found it again, expected it once: it stands at main.ini:1",
    ]


def test_a_name_must_be_there_and_a_pattern_need_not(tmp_path: Path) -> None:
    """A plain name that leads nowhere is a fault at its include."""
    write(tmp_path, main=main("x/*.ini, gone.ini, [ab].ini, folder"))
    (tmp_path / "folder").mkdir()
    assert faults(tmp_path) == [
        "main.ini:3: include: found 'gone.ini', expected a file that exists, or a pattern such as conf.d/*.ini",
        "folder:1: config: cannot read the file: Is a directory",
    ]


def test_the_file_itself_is_not_read_again(tmp_path: Path) -> None:
    """A pattern for its own folder matches it, too, also by another name."""
    write(tmp_path, main=main("*.ini"), other=plugin("x"))
    (tmp_path / "link.ini").symlink_to("main.ini")
    assert list(loaded(tmp_path).others) == ["plugin:x"]


def test_an_include_that_cannot_be_read_is_one_fault(tmp_path: Path) -> None:
    """No second one follows from it."""
    write(tmp_path, main=main("a.ini,,b.ini"))
    assert faults(tmp_path) == [
        "main.ini:3: include: found 'a.ini,,b.ini', expected files or patterns separated by commas"
    ]


def test_folders_with_the_signs_of_patterns(tmp_path: Path) -> None:
    """The folder of the file is a name, whatever stands in it."""
    folder = tmp_path / "a[b]*"
    folder.mkdir()
    write(folder, main=main("x/*.ini"), x__y=plugin("y"))
    assert list(loaded(folder).others) == ["plugin:y"]
