"""A forked child from its first instruction to its last: it never comes back to the code that forked it."""

from __future__ import annotations

import sys
from typing import Any, Callable, NoReturn

import pytest

from rpccluster.child.assignment import Run
from rpccluster.child.life import EXIT_BOOT_FAILED, EXIT_CRASHED, live
from rpccluster.errors import ServiceUnfit
from rpccluster.ipc.messages import BootFailed
from tests.child.born import MadeUpPart, made_up, told_by_a_child


def fail(error: BaseException) -> NoReturn:
    """Raise it, where only an expression may stand."""
    raise error


def lived(load: Callable[[object], Run]) -> tuple[int, list[Any]]:
    """The exit code of a child whose code ``load`` loads, and what it said."""
    with made_up(part=MadeUpPart([sys.stdout.fileno()])) as (assignment, ours):

        def be(tell: object, descriptor: int) -> None:
            live(assignment, load)

        _, code = told_by_a_child(be)
        assignment.channel.close()
        return code, [message for message, _ in ours.receive()]


def test_it_ends_with_the_code_of_its_run() -> None:
    """And says nothing of its own."""
    assert lived(lambda _: lambda: 42) == (42, [])


def test_the_code_is_given_what_the_child_was_born_with() -> None:
    """Its kind's part is in it."""
    assert lived(lambda assignment: lambda: assignment.slot)[0] == 3


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), ValueError("no")])
def test_whatever_its_run_raises_ends_it(error: BaseException) -> None:
    """Nothing goes up to the frames of the master's that it was forked in."""
    assert lived(lambda _: lambda: fail(error)) == (EXIT_CRASHED, [])


def test_a_load_that_fails_is_told_with_its_traceback() -> None:
    """Before the child ends by it."""
    code, said = lived(lambda _: fail(ZeroDivisionError("by nothing")))
    assert code == EXIT_BOOT_FAILED
    assert [type(each) for each in said] == [BootFailed]
    assert (said[0].stage, said[0].text.splitlines()[0]) == ("worker", "ZeroDivisionError: by nothing")
    assert "Traceback (most recent call last)" in said[0].text


def test_what_the_package_raises_on_purpose_is_told_as_it_is() -> None:
    """No traceback says more than its text."""
    assert lived(lambda _: fail(ServiceUnfit("it has no methods"))) == (
        EXIT_BOOT_FAILED,
        [BootFailed("service", "it has no methods")],
    )


def test_what_was_printed_last_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    """Though the process ends without Python's own end."""
    lived(lambda _: lambda: print("goodbye", end="", file=sys.stdout) or 0)
    assert "goodbye" in capfd.readouterr().out
