"""What the keys have chosen: the section in front, its sorting and its row, a stack, a pause. Pure.

The process that the user starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Callable

from rpccluster.cli.top.sections import Section

__all__ = ["KEYS", "State", "arranged", "press"]

KEYS = "q quit  tab section  ↑↓ row  s sort  r reverse  f freeze  z zoom  enter stack"


@dataclass(frozen=True)
class State:
    """What is shown. ``front`` is the name of a section; ``stack`` is the text that hides all of them.

    ``asks_for`` is the pid of a worker whose stack is wanted; ``is_over`` says that the program ends.
    """

    front: str = ""
    rows: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    sorting: Mapping[str, tuple[int, bool]] = field(default_factory=lambda: MappingProxyType({}))
    is_frozen: bool = False
    is_zoomed: bool = False
    stack: str | None = None
    first_line: int = 0  # of the stack that is shown
    asks_for: int = 0
    is_over: bool = False

    def selected(self, section: Section) -> int:
        """Return which row of ``section`` is selected."""
        return min(self.rows.get(section.name, 0), max(0, len(section.rows) - 1))


def arranged(state: State, sections: Sequence[Section]) -> list[Section]:
    """Return ``sections`` with the rows of each sorted as was chosen."""
    return [
        section.sorted(*state.sorting.get(section.name, (section.sorted_by, section.is_descending)))
        for section in sections
    ]


def press(state: State, key: str, sections: Sequence[Section]) -> State:
    """Return what ``key`` makes of ``state``; ``sections`` are those on the screen, arranged. Others change nothing."""
    if key in ("q", "ctrl-c"):
        return replace(state, is_over=True)
    if state.stack is not None:
        return _press_at_stack(state, key)
    action = _ACTIONS.get(key)
    return state if action is None or not sections else action(state, sections)


def _press_at_stack(state: State, key: str) -> State:
    if key in ("esc", "enter"):
        return replace(state, stack=None, asks_for=0, first_line=0)
    step = {"up": -1, "down": 1, "page up": -10, "page down": 10}.get(key, 0)
    most = max(0, len((state.stack or "").splitlines()) - 1)
    return replace(state, first_line=min(most, max(0, state.first_line + step)))


def _in_front(state: State, sections: Sequence[Section]) -> Section:
    return next((each for each in sections if each.name == state.front), sections[0])


def _turn(step: int) -> Callable[[State, Sequence[Section]], State]:
    def turn(state: State, sections: Sequence[Section]) -> State:
        names = [each.name for each in sections]
        place = names.index(_in_front(state, sections).name)
        return replace(state, front=names[(place + step) % len(names)])

    return turn


def _move(step: int) -> Callable[[State, Sequence[Section]], State]:
    def move(state: State, sections: Sequence[Section]) -> State:
        front = _in_front(state, sections)
        row = min(max(0, state.selected(front) + step), max(0, len(front.rows) - 1))
        return replace(state, rows={**state.rows, front.name: row})

    return move


def _sort(state: State, sections: Sequence[Section]) -> State:
    """Sort by the next column: numbers from the largest on, texts from the first on."""
    front = _in_front(state, sections)
    column = (front.sorted_by + 1) % len(front.columns)
    chosen = column, not front.columns[column].is_text
    return replace(state, sorting={**state.sorting, front.name: chosen})


def _reverse(state: State, sections: Sequence[Section]) -> State:
    front = _in_front(state, sections)
    chosen = front.sorted_by, not front.is_descending
    return replace(state, sorting={**state.sorting, front.name: chosen})


def _ask(state: State, sections: Sequence[Section]) -> State:
    """Ask for the stack of the selected worker, or of the one that runs the selected call."""
    front = _in_front(state, sections)
    return replace(state, asks_for=front.pids[state.selected(front)]) if front.pids else state


_ACTIONS: Mapping[str, Callable[[State, Sequence[Section]], State]] = {
    "tab": _turn(1),
    "shift-tab": _turn(-1),
    "up": _move(-1),
    "down": _move(1),
    "page up": _move(-10),
    "page down": _move(10),
    "s": _sort,
    "r": _reverse,
    "f": lambda state, sections: replace(state, is_frozen=not state.is_frozen),
    " ": lambda state, sections: replace(state, is_frozen=not state.is_frozen),
    "z": lambda state, sections: replace(state, is_zoomed=not state.is_zoomed),
    "esc": lambda state, sections: replace(state, is_zoomed=False),
    "enter": _ask,
}
