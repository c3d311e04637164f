"""The history: what has changed, who has changed it, the way back, and a file that goes on after a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpccluster.config import Sources, load
from rpccluster.master.history import (
    KEPT_VERSIONS,
    History,
    Version,
    changes_between,
    history_path,
    read_history,
    values_of,
)


def version(number: int, **changes: tuple[str | None, str | None]) -> Version:
    return Version(number, "2026-01-02T03:04:05Z", 1000, "config set", changes)


def history(*versions: Version) -> History:
    made = History()
    for each in versions:
        values = {**made.values, **{name: new for name, (_, new) in each.changes.items() if new is not None}}
        made = made.with_version(each, values)
    return made


def test_it_keeps_the_last_versions() -> None:
    """And the number of the last one."""
    made = history(*(version(number, price=(str(number - 1), str(number))) for number in range(2, 40)))
    assert [each.number for each in made.versions] == list(range(40 - KEPT_VERSIONS, 40))
    assert (made.number, made.values) == (39, {"price": "39"})


def test_the_way_back_is_the_old_values_of_all_that_came_later() -> None:
    """The oldest of a name counts; what was not there goes again."""
    made = history(
        version(2, price=("1", "2"), timeout=("30", "20")),
        version(3, price=("2", "3"), colour=(None, "red")),
        version(4, price=("3", "4")),
    )
    assert made.undoing(4, None) == {"price": "3"}
    assert made.undoing(4, 3) == {"price": "3"}
    assert made.undoing(4, 2) == {"price": "2", "colour": None}
    assert made.undoing(4, 1) == {"price": "1", "colour": None, "timeout": "30"}
    assert made.undoing(4, 4) == {}
    for wrong in (0, 5, -1):
        with pytest.raises(ValueError, match=f"found the version {wrong}, expected one of 1 to 4"):
            made.undoing(4, wrong)
    with pytest.raises(ValueError, match="found the version 0, expected 1: there is no older one"):
        History().undoing(1, None)


def test_its_file_reads_as_it_was_written(tmp_path: Path) -> None:
    """Whatever the texts are. Without a file it is empty; what is none is told."""
    path = str(tmp_path / "x")
    assert read_history(path) == History(path)
    assert read_history(None) == History()
    made = history(version(2, **{"settings.ä \udc80": ("1", None), "b": (None, "x\ny")}))
    (tmp_path / "x").write_bytes(made.encoded())
    read = read_history(path)
    assert (read.versions, read.values, read.number, read.path) == (made.versions, made.values, made.number, path)
    for wrong in (b"", b"{}", b"[]", b'{"versions": [1], "values": {}, "version": 1}', b"\xff"):
        (tmp_path / "x").write_bytes(wrong)
        with pytest.raises(ValueError):
            read_history(path)


def test_a_start_takes_a_number() -> None:
    """It is a version if the values differ from those at the end."""
    made = history(version(2, price=("1", "2")))
    same = made.with_start("2026-01-02T03:04:06Z", 0, {"price": "2"})
    assert (same.number, same.versions) == (3, made.versions)
    other = same.with_start("2026-01-02T03:04:07Z", 0, {"price": "1", "new": "x"})
    assert other.versions[-1] == Version(
        4, "2026-01-02T03:04:07Z", 0, "start", {"price": ("2", "1"), "new": (None, "x")}
    )
    assert other.undoing(4, 2) == {"price": "2", "new": None}


def test_it_stands_beside_the_pidfile_or_the_configuration(tmp_path: Path) -> None:
    """And has all that can change while the cluster runs."""
    main = tmp_path / "x.ini"
    main.write_text(f"[cluster]\nservice = a:b\npidfile = {tmp_path}/run/pid\ntimeout = 7\n[settings]\nPrice = 1\n")
    configuration = load(Sources(str(main)))
    assert history_path(configuration) == f"{tmp_path}/run/pid.history"
    values = values_of(configuration)
    assert (values["timeout"], values["settings.Price"], "pidfile" in values) == ("7", "1", False)
    main.write_text("[cluster]\nservice = a:b\n")
    assert history_path(load(Sources(str(main)))) == f"{main}.history"
    assert history_path(load(Sources(flags={"service": "a:b"}))) is None


def test_what_differs() -> None:
    """Each name with both texts."""
    assert changes_between({"a": "1", "b": "2"}, {"b": "3", "c": ""}) == {
        "a": ("1", None),
        "b": ("2", "3"),
        "c": (None, ""),
    }
