"""A master that cannot be put together leaves nothing behind, and touches nothing that an old master holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rpccluster.assembly import assemble
from rpccluster.config import Machine, Sources, load
from rpccluster.ipc.channel import channel_pair
from rpccluster.master.parts import Start
from rpccluster.master.resources.listeners import open_control_listener, open_listeners
from rpccluster.master.resources.pidfile import Pidfile
from rpccluster.master.upgrade.inherited import Inheritance


@pytest.fixture
def at_the_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def configuration(folder: Path, name: str) -> Any:
    """One whose paths are all of that name."""
    sockets = f"bind = unix://{folder}/{name}.sock\ncontrol_socket = {folder}/{name}.control\n"
    (folder / "x.ini").write_text(f"[cluster]\nservice = a:b\n{sockets}pidfile = {folder}/{name}.pid\n")
    return load(Sources("x.ini", start_folder=str(folder)), Machine())


def inherited(options: Any, at_the_end: ExitStack) -> Inheritance:
    """What an old master with these options leaves to a new one."""
    ours, theirs = channel_pair()
    listeners, control = open_listeners(options, None, []), open_control_listener(options.control_socket)
    pidfile = Pidfile.acquire(options.pidfile)
    pidfile.write(4711)
    for each in (*listeners, control):
        at_the_end.callback(each.close, is_last=True)
    for closable in (ours, theirs, pidfile):
        at_the_end.callback(closable.close)
    return Inheritance(ours, 1, 1, listeners=listeners, control=control, pidfile=pidfile)


@pytest.mark.parametrize("case", ["start", "upgrade", "upgrade to other paths"])
def test_a_master_that_fails_late_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_the_end: ExitStack, case: str
) -> None:
    """Neither a socket nor a pid of its own; those of an old master stay."""

    def fail(*arguments: object) -> None:
        raise OSError("no memory left")

    present = {"old.control", "old.pid", "old.sock"} if case != "start" else set()
    inheritance = inherited(configuration(tmp_path, "old").options, at_the_end) if present else None
    wanted = configuration(tmp_path, "old" if case == "upgrade" else "new")
    monkeypatch.setattr(assemble, "_make_supervisor", fail)
    monkeypatch.setattr(assemble, "set_up_logging", lambda *arguments: None)
    nothing: Any = None
    with pytest.raises(OSError, match="no memory left"):
        assemble._assemble(wanted, Start(nothing, nothing, nothing, inheritance))
    left = set(os.listdir(tmp_path)) - {"x.ini"}
    assert left - {"new.pid"} == present
    if "new.pid" in left:
        assert (tmp_path / "new.pid").read_text() == ""
    if present:
        assert (tmp_path / "old.pid").read_text() == "4711\n"
