"""What each key does."""

from __future__ import annotations

import pytest

from rpccluster.cli.top.keyboard import keys_in
from rpccluster.cli.top.sections import Column, Section
from rpccluster.cli.top.state import State, arranged, press

WORKERS = Section("workers", [Column("A", str), Column("B", str, True)], [(2, "x"), (1, "y")], "", [102, 101])
METHODS = Section("methods", [Column("M", str, True)], [])


def pressed(*keys: str, state: State | None = None) -> State:
    """The state after ``keys``."""
    state = state or State()
    for key in keys:
        state = press(state, key, arranged(state, [WORKERS, METHODS]))
    return state


def test_sections_come_to_the_front_in_a_circle() -> None:
    """Forwards and backwards, from the first one on."""
    fronts = [pressed(*keys).front for keys in (["tab"], ["tab"] * 2, ["shift-tab"])]
    assert fronts == ["methods", "workers", "methods"]


def test_rows_are_selected_and_sorted() -> None:
    """The selection stays within the rows; sorting goes from column to column, numbers from the largest on."""
    assert pressed("down", "down", "down").selected(WORKERS) == 1
    assert pressed("page down", "up", "up").selected(WORKERS) == 0
    assert pressed("s").sorting == {"workers": (1, False)}
    assert pressed("s", "s").sorting == {"workers": (0, True)}
    assert pressed("r").sorting == {"workers": (0, True)}
    assert [row[0] for row in arranged(pressed("r", "r"), [WORKERS])[0].rows] == [1, 2]
    assert pressed("tab", "down", "s").selected(METHODS) == 0


def test_the_stack_of_the_selected_worker() -> None:
    """Enter asks for it, once it is there the keys are about it, and Esc goes back."""
    assert pressed("enter").asks_for == 101  # the rows are sorted by the first column
    assert pressed("down", "enter").asks_for == 102
    assert pressed("tab", "enter").asks_for == 0
    shown = State(stack="a\nb\nc")
    assert pressed("down", "down", "down", "down", state=shown).first_line == 2
    assert pressed("down", "up", "up", state=shown).first_line == 0
    assert pressed("f", "s", state=shown) == shown
    assert pressed("esc", state=shown) == State()
    assert pressed("q", state=shown).is_over


def test_the_other_keys() -> None:
    """Pause, zoom, end; an unknown key, and any without a section, changes nothing."""
    assert pressed("f").is_frozen and pressed(" ").is_frozen and not pressed("f", "f").is_frozen
    assert pressed("z").is_zoomed and not pressed("z", "esc").is_zoomed
    assert pressed("q").is_over and pressed("ctrl-c").is_over
    assert pressed("x") == State()
    assert press(State(), "s", []) == State()


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[Bs", ["up", "down", "s"]),
        (b"\x1bOA\x1b[5~\x1b[6~\x1b[Z", ["up", "page up", "page down", "shift-tab"]),
        (b"\x1b", ["esc"]),
        (b"\x1bz", ["esc", "z"]),
        (b"\x1b[1;5C", []),
        (b"\t\r \xc3\xa9", ["tab", "enter", " "]),
    ],
)
def test_keys_by_their_bytes(data: bytes, keys: list[str]) -> None:
    """As terminals send them; what is no key is left out."""
    assert list(keys_in(data)) == keys
