"""What there is to be met: every row of the tables, every message, every command. Coverage of tables, not of lines."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator

from rpccluster.errors import IllegalTransition
from rpccluster.ipc.messages import TYPES
from rpccluster.master.children import child as child_states
from rpccluster.master.control.signal_commands import COMMANDS
from rpccluster.master.phases import Event, Phase, next_phase
from rpccluster.master.upgrade import new_master
from rpccluster.worker import lifecycle

__all__ = ["Counts", "never_met", "report"]

#: How often what was met: (kind, what) → number.
Counts = Counter  # of tuple[str, str]


def _all() -> Iterator[tuple[str, str]]:
    for phase in Phase:
        for event in Event:
            if _leads_on(next_phase, phase, event):
                yield "phase", f"{phase.value}, {event.value}"
    for state in lifecycle.State:
        for happens in lifecycle.Event:
            if _leads_on(lifecycle.next_state, state, happens):
                yield "worker", f"{state.value}, {happens.value}"
    for child, event in child_states._TABLE:
        yield "child", f"{child.value}, {event.value}"
    for (stage, _), after in new_master._TABLE.items():
        yield "stage", f"{stage.value}, {after.value}"
    for type_ in TYPES.values():
        yield "message", type_.__name__
    for signum in COMMANDS:
        yield "command", signal.Signals(signum).name


def _leads_on(step: object, *row: object) -> bool:
    try:
        step(*row)  # type: ignore[operator]
    except IllegalTransition:
        return False
    return True


#: Rows that no life can meet, or that nobody counts, and why.
IMPOSSIBLE: dict[tuple[str, str], str] = {}


def never_met(counts: Counts) -> list[tuple[str, str]]:
    """Return what could have been met and was not."""
    return [each for each in dict.fromkeys(_all()) if each not in counts and each not in IMPOSSIBLE]


def report(counts: Counts) -> Iterator[str]:
    """Yield the lines of a report: how often each was met, then what never was."""
    for (kind, what), number in sorted(counts.items()):
        yield f"{number:10}  {kind}: {what}"
    for kind, what in never_met(counts):
        yield f"never met   {kind}: {what}"
