"""A forked child is made decent before any code of its kind's runs: whatever it was forked from."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest

from rpccluster import system
from rpccluster.child.prepare import IGNORED, prepare
from rpccluster.config import Options
from rpccluster.errors import StartError
from rpccluster.log import LogFiles
from tests.child.born import MadeUpPart, made_up, told_by_a_child

Tell = Callable[[Any], None]


def nothing(_: object) -> Callable[[], int]:
    """The code of a kind that consists of nothing."""
    return lambda: 0


def prepared(look: Callable[[], Any], options: Options | None = None, **changes: Any) -> Any:
    """What ``look`` finds in a child that is prepared."""
    with made_up(options, **changes) as (assignment, _):

        def be(tell: Tell, descriptor: int) -> None:
            part = MadeUpPart([descriptor, *assignment.part.kept])
            prepare(replace(assignment, part=part), nothing)
            tell(look())

        told, code = told_by_a_child(be)
    assert code == 0
    return told


def test_it_keeps_its_own_descriptors_alone() -> None:
    """What the master has opened is closed; what it was given, and what came through an exec, stays."""
    inherited, kept, others = os.dup(0), os.dup(0), socket.socketpair()
    os.set_inheritable(inherited, True)
    looked_at = [inherited, kept, *(each.fileno() for each in others)]

    def is_open(descriptor: int) -> bool:
        try:
            os.fstat(descriptor)
        except OSError:
            return False
        return True

    part = MadeUpPart([kept])
    assert prepared(lambda: [is_open(each) for each in looked_at], part=part) == [True, True, False, False]
    for descriptor in (inherited, kept):
        os.close(descriptor)
    for each in others:
        each.close()


def test_without_proc_all_numbers_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no list of them, those that may be open are closed all the same."""
    other = os.dup(0)

    def refuse(path: str) -> list[str]:
        raise FileNotFoundError(path)

    def look() -> list[str]:
        monkeypatch.undo()
        return os.listdir("/proc/self/fd")

    monkeypatch.setattr(os, "listdir", refuse)
    assert str(other) not in prepared(look)
    os.close(other)


def test_signals_mean_what_they_mean_anywhere() -> None:
    """None is blocked, and the master's handlers are gone; what a pkill by name sends is ignored."""

    def look() -> list[bool]:
        return [
            not signal.pthread_sigmask(signal.SIG_BLOCK, []),
            all(signal.getsignal(signum) == signal.SIG_IGN for signum in IGNORED),
            all(signal.getsignal(s) == signal.SIG_DFL for s in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)),
            signal.set_wakeup_fd(-1) == -1,
        ]

    assert prepared(look) == [True, True, True, True]


def test_quit_ends_it_without_a_core() -> None:
    """As INT does."""
    with made_up() as (assignment, _):

        def be(tell: Tell, descriptor: int) -> None:
            prepare(assignment, nothing)
            os.kill(os.getpid(), signal.SIGQUIT)
            signal.pause()

        assert told_by_a_child(be) == (None, -signal.SIGINT)


def test_it_leads_a_group_of_its_own_and_bears_its_title() -> None:
    """By which its own children can be ended with it, and by which ps(1) shows it."""

    def look() -> list[object]:
        return [os.getpgid(0) == os.getpid(), Path("/proc/self/cmdline").read_text().strip("\0 ")]

    assert prepared(look) == [True, "rpccluster: thing 3 [name]"]


def test_what_the_environment_says_to_the_master_alone_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service would take it for its own."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/it")
    assert prepared(lambda: os.environ.get("NOTIFY_SOCKET")) is None


def test_its_lines_go_to_its_log(tmp_path: Path) -> None:
    """And so does the stack that the master asks for."""
    logs = LogFiles(str(tmp_path / "log"), "")
    logs.open()

    def look() -> None:
        from rpccluster.log import logger

        logger.warning("here it is")
        os.kill(os.getpid(), system.TELL_SIGNAL)

    prepared(look, logs=logs)
    logs.close()
    written = (tmp_path / "log").read_text()
    assert "here it is" in written
    assert "most recent call first" in written


def test_it_runs_on_its_cpus_under_its_umask_in_its_folder(tmp_path: Path) -> None:
    """As its options say."""
    cpus = sorted(system.allowed_cpus())[:1]
    options = Options(service="a:b", umask=0o027, chdir=str(tmp_path))

    def look() -> list[object]:
        return [sorted(system.allowed_cpus()), os.umask(0), os.getcwd(), os.environ["PWD"]]

    assert prepared(look, options, cpus=cpus) == [cpus, 0o027, str(tmp_path), str(tmp_path)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another")
def test_its_kinds_code_is_loaded_before_the_rights_are_gone() -> None:
    """The user to become need not be able to read it."""
    options = Options(service="a:b", user="65534", group="65534")
    with made_up(options) as (assignment, _):

        def be(tell: Tell, descriptor: int) -> None:
            part = MadeUpPart([descriptor])
            found = prepare(replace(assignment, part=part), lambda _: os.geteuid)  # type: ignore[arg-type, return-value]
            tell([found(), os.getegid(), os.getgroups()])

        loaded_as: list[int] = []

        def load(_: object) -> Callable[[], int]:
            loaded_as.append(os.geteuid())
            return lambda: loaded_as[0]

        def be_another(tell: Tell, descriptor: int) -> None:
            tell([prepare(replace(assignment, part=MadeUpPart([descriptor])), load)(), os.geteuid()])

        assert told_by_a_child(be)[0] == [65534, 65534, [65534]]
        assert told_by_a_child(be_another)[0] == [0, 65534]


def test_an_account_that_is_gone_is_told() -> None:
    """It raises what the life of a child tells the master."""
    with made_up(Options(service="a:b", user="nobody-of-that-name")) as (assignment, _):

        def be(tell: Tell, descriptor: int) -> None:
            with pytest.raises(StartError, match="nobody-of-that-name"):
                prepare(replace(assignment, part=MadeUpPart([descriptor])), nothing)

        assert told_by_a_child(be)[1] == 0


def test_it_ends_if_its_master_has_gone_meanwhile() -> None:
    """The kernel is asked last, and tells of no parent that had ended before."""
    with made_up(master_pid=1) as (assignment, _):

        def be(tell: Tell, descriptor: int) -> None:
            prepare(replace(assignment, part=MadeUpPart([descriptor])), nothing)
            tell("lives on")

        assert told_by_a_child(be) == (None, 1)
