"""Draws the sections with rich: a line about the master, a table for each section, a line of keys.

The process that the user starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rpccluster.cli.top.fitting import first_shown, shares
from rpccluster.cli.top.sections import Section
from rpccluster.cli.top.state import KEYS, State
from rpccluster.log import escaped

__all__ = ["draw", "draw_failure"]

_HEAD_LINES = 1
_FOOT_LINES = 1
_NUMBER_WIDTH = 6  # at least, so that columns stay where they are
_TITLE_STYLE = "reverse dim"
_FRONT_STYLE = "reverse bold"
_SELECTED_STYLE = "bold"
_STATES = {"ready": "green", "retiring": "yellow", "booting": "yellow", "waiting": "red", "stopped": "dim"}


def draw(
    state: State, status: dict[str, Any], sections: Sequence[Section], size: tuple[int, int], failure: str = ""
) -> Group:
    """Draw everything in a terminal of the ``size`` width and height; ``failure`` says why what is shown is old."""
    width, height = size
    head, foot = _head(state, status, failure), _line(KEYS, "dim")
    room = max(0, height - _HEAD_LINES - _FOOT_LINES)
    if state.stack is not None:
        return Group(head, *_stack(state, width, room), _line("esc back  ↑↓ scroll  q quit", "dim"))
    front = next((place for place, each in enumerate(sections) if each.name == state.front), 0)
    shown = sections[front : front + 1] if state.is_zoomed else sections
    lines = shares([1 + max(1, len(each.rows)) for each in shown], room, 0 if state.is_zoomed else front)
    tables = [_table(state, each, given, each is sections[front]) for each, given in zip(shown, lines) if given]
    blank = [Text("")] * (room - sum(lines))
    return Group(head, *tables, *blank, foot)


def draw_failure(failure: str) -> Text:
    """Draw why there is nothing to show yet."""
    return _line(failure, "red")


def _line(text: str, style: str = "") -> Text:
    return Text(escaped(text), style=style, no_wrap=True, overflow="ellipsis")


def _head(state: State, status: dict[str, Any], failure: str) -> Text:
    master = status["master"]
    workers = status["workers"]
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(f"rpccluster {master['version']} ", "bold")
    head.append(f"master {master['pid']} {master['state']}", _STATES.get(master["state"], "green"))
    if failure:
        head.append(f" DOES NOT ANSWER: {escaped(failure)}", "bold red")
    if state.is_frozen:
        head.append(" FROZEN", "bold yellow")
    head.append(f"  up {_duration(master['uptime_seconds'])}  gen {master['generation']}")
    head.append(f"  settings {master['settings']['version']}")
    if workers:
        head.append(f"  {sum(each['connections'] for each in workers)} conn")
    lead = master.get("leadership")
    if lead:
        head.append("  leads" if lead["is_leader"] else f"  follows {escaped(str(lead['leader']))}")
    return head


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h" if days else f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"


def _table(state: State, section: Section, lines: int, is_front: bool) -> Table:
    """Draw ``section`` in ``lines`` lines, of which the first is its titles."""
    style = _FRONT_STYLE if is_front else _TITLE_STYLE
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style=style, pad_edge=True, show_edge=False)
    for place, column in enumerate(section.columns):
        mark = ("↓" if section.is_descending else "↑") if place == section.sorted_by and section.rows else ""
        is_wide = column.is_text and (place == 0 or place == len(section.columns) - 1)
        table.add_column(
            Text(column.title + mark),
            justify="left" if column.is_text else "right",
            no_wrap=True,
            overflow="ellipsis",
            min_width=None if column.is_text else _NUMBER_WIDTH,
            ratio=(2 if place == 0 else 1) if is_wide else None,
        )
    selected = state.selected(section)
    if section.rows:
        first = first_shown(selected, lines - 1, len(section.rows))
        for number, row in list(enumerate(section.rows))[first : first + lines - 1]:
            is_marked = is_front and number == selected
            table.add_row(*_cells(section, row), style=_SELECTED_STYLE + " on grey23" if is_marked else None)
    elif lines > 1:
        table.add_row(_line(section.note, "dim italic"))
    return table


def _cells(section: Section, row: Sequence[Any]) -> list[Text]:
    cells = []
    for column, value in zip(section.columns, row):
        style = _STATES.get(str(value).partition(" ")[0], "") if column.title == "STATE" else ""
        cells.append(Text(column.show(value), style=style))
    return cells


def _stack(state: State, width: int, room: int) -> list[Text]:
    lines = (state.stack or "").splitlines()[state.first_line :][:room]
    shown = [_line(_end_of(line, width), "") if line.startswith(" ") else _line(line, "bold") for line in lines]
    return [*shown, *[Text("")] * (room - len(shown))]


def _end_of(line: str, width: int) -> str:
    """Cut a long line at its begin: a path ends with what matters."""
    return line if len(line) <= width else f"  …{line[3 - width :]}" if width > 3 else line
