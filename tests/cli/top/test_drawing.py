"""What stands on a screen of any size."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rich")

from rich.console import Console

from rpccluster.cli.top.drawing import draw
from rpccluster.cli.top.sections import sections
from rpccluster.cli.top.snapshots import History
from rpccluster.cli.top.state import State, arranged

from .made_up import group, snapshot, worker


def lines(width: int, height: int, state: State | None = None, failure: str = "", number: int = 3) -> list[str]:
    """The lines of a screen that shows some workers and a plugin."""
    state = state or State()
    history = History()
    calls: list[dict[str, Any]] = [{"slot": 0, "pid": 100, "calls": [["slow[red]", "10.0.0.1:5", 2.0]], "hosts": []}]
    workers = [worker(slot) for slot in range(number)]
    history.add(snapshot(0.0, *workers, groups=[group("plugin:mail", "plugin")], calls=calls, missing="no [metrics]"))
    console = Console(width=width, height=height, color_system=None, markup=False, highlight=False)
    shown = draw(state, history.last.status, arranged(state, sections(history)), (width, height), failure)
    with console.capture() as captured:
        console.print(shown)
    return captured.get().splitlines()


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (80, 10), (40, 12), (20, 5), (10, 3)], ids=str)
@pytest.mark.parametrize("number", [1, 3, 500])
def test_it_fits(size: tuple[int, int], number: int) -> None:
    """No line is wider than the terminal, and there are as many as it has; the first is about the master."""
    shown = lines(*size, number=number)
    assert len(shown) == size[1]
    assert all(len(line) <= size[0] for line in shown)
    assert shown[0].startswith("rpccluste")


def test_everything_is_there() -> None:
    """With the keys in the last line; text from outside is no markup."""
    shown = "\n".join(lines(80, 24))
    for text in ("WORKER↑", "48M", "METHOD", "no [metrics]", "slow[red]", "10.0.0.1:5", "GROUP↑", "mail", "q quit"):
        assert text in shown, text


def test_a_zoomed_section_stands_alone() -> None:
    """And has the room of all."""
    shown = "\n".join(lines(80, 24, State(is_zoomed=True, front="workers"), number=50))
    assert "METHOD" not in shown and shown.count("48M") == 21


def test_the_first_line_says_what_is_wrong() -> None:
    """That what is shown is old, or stands."""
    assert "DOES NOT ANSWER: gone" in lines(80, 24, failure="gone")[0]
    assert "FROZEN" in lines(80, 24, State(is_frozen=True))[0]


def test_a_stack_hides_the_rest() -> None:
    """From the line on to which it was scrolled."""
    shown = lines(80, 10, State(stack="worker 100\nmethod slow:\n  a.py:5 (slow)", first_line=1))
    assert shown[1:3] == ["method slow:", "  a.py:5 (slow)"]
    long = State(stack=f"a method of a name that is long:\n  /{'x' * 90}/a.py:5 (slow)")
    shown_in_little = lines(30, 10, long)
    assert shown_in_little[1].startswith("a method of") and shown_in_little[2].endswith("x/a.py:5 (slow)")
    assert (len(shown), shown[-1].startswith("esc back")) == (10, True)
