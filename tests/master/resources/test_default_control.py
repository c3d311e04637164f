"""The control socket that no option names: where it is opened, kept, or done without."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster.master.resources import default_control
from rpccluster.master.resources.default_control import open_default_control
from rpccluster.master.resources.listeners import open_control_listener

NAME = "shop-0123456789ab.sock"

HINT = "; another program listens there: stop it, or choose another address"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is logged."""
    lines: list[str] = []
    logger = logging.Logger("of this test")
    monkeypatch.setattr(logger, "_log", lambda level, message, args: lines.append(message % args))
    monkeypatch.setattr(default_control, "logger", logger)
    yield lines


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder for default control sockets, not made yet."""
    monkeypatch.setattr(default_control.control_path, "folders", lambda: [str(tmp_path / "own")])
    return tmp_path / "own"


def test_it_is_opened_for_this_user_alone(folder: Path, told: list[str]) -> None:
    """The folder is made, and the log says where the socket is."""
    listener = open_default_control(NAME, None)
    assert listener is not None
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert told == [f"Control socket: {folder / NAME}"]
    listener.close(is_last=True)
    assert os.listdir(folder) == []


def test_it_takes_away_what_the_dead_have_left(folder: Path, told: list[str]) -> None:
    """So the folder does not fill with the sockets of killed masters."""
    folder.mkdir(mode=0o700)
    dead = folder / "dead-0123456789ab.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(dead))
    os.utime(dead, (1, 1))
    listener = open_default_control(NAME, None)
    assert listener is not None
    assert os.listdir(folder) == [NAME]
    listener.close(is_last=True)


def test_what_a_living_master_holds_is_left_to_it(folder: Path, told: list[str]) -> None:
    """The second cluster has none, and says so."""
    first = open_default_control(NAME, None)
    assert first is not None
    assert open_default_control(NAME, None) is None
    assert told[1] == f"No control socket: cannot open the control socket {folder / NAME}: Address already in use{HINT}"
    assert first.is_there()
    first.close(is_last=True)


def test_where_none_can_be_had_there_is_none(folder: Path, told: list[str]) -> None:
    """A folder that others may enter is none, and no fault."""
    folder.mkdir()
    folder.chmod(0o755)
    assert open_default_control(NAME, None) is None
    assert len(told) == 1
    assert told[0].startswith(f"No control socket: cannot open the control socket {folder / NAME}: expected a folder")


def test_the_old_masters_is_kept(folder: Path, told: list[str]) -> None:
    """If it is at such a path; a socket at another one is not the new master's."""
    first = open_default_control(NAME, None)
    assert first is not None
    assert open_default_control(NAME, first) is first
    other = open_control_listener(str(folder / "other"))
    mine = open_default_control("new-" + NAME, other)
    assert mine is not None and mine is not other
    for each in (first, other, mine):
        each.close(is_last=True)
