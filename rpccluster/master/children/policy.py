"""Decides what to do next with the children of one group, and when to look again. Pure; runs in the master.

`decide` is called after every event, and at the time that it has returned. The group shows the effect of its actions
before the next call. While the group runs, these rules hold, in this order:

1. Every ready child beyond the wanted number retires, and so does every child whose slot has a better ready child (of
   a newer generation, or started later). Booting children beyond the wanted number are killed, and those of an older
   generation than the present one, once a reload replaces it.
2. The first child of a staged edition is started, and a child for each vacant slot that need not pause after its
   deaths.
3. If no slot was vacant and no edition is staged, at most one successor is started, beside the child that is overdue
   longest. It is not started while a child boots; nor while a retiring child gives its connections away, or they are
   on their way to another one, since a fork holds up the master, and a boot takes CPU from the others; nor when as many
   children retire as are wanted, so that successors do not pile up.

So a recycled child retires by rule 1, when its successor is ready, and the wanted number is ready all the time. If a
predecessor must end first, rule 3 retires it, and rule 2 starts its successor when it has ended. While the first
children of a group boot, none is replaced: the start has succeeded or failed when none boots any more.

A group that is stopped by hand retires its children, and so does one that needs the lead, while the cluster has not got
it. A group with a schedule starts them only when a run is due:
a run that is overdue has no successor beside it.

In every phase hung children are killed, retiring ones that take too long, and those that their kind finds past a limit
of its own. A child writes a heartbeat every half
second from its loop, so a spinning method stops the heartbeat; there is none while the service is imported, so
`timeout` bounds that, too. Past `timeout` the master questions the child, which dumps its stack into the log, from C,
whatever it is doing, and notes what it works on. A moment later it is killed; its slot counts as vacant from the
question on. Silence that the master could not watch, because it stood still, does not count (`Child.excuse`): if all
processes are stopped for an hour, none is killed when they go on. The master notices that it stood still if it wakes
late, by more than `LATE_SECONDS`. So it also looks that long before a child is overdue: otherwise a standstill that
ends just after that moment would not seem late.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Union

from rpccluster.master.children.child import HUNG, LATE, MOVING_SECONDS, Child, ChildState, Options, Overdue
from rpccluster.master.children.group import Group, Overlap

__all__ = ["LATE_SECONDS", "Action", "Admit", "Decision", "Dismiss", "Kill", "Question", "Retire", "Spawn", "decide"]

BEAT_SECONDS = 0.5  # between two heartbeats; silence counts only beyond it
LATE_SECONDS = 1.0  # that the master may wake too late without having stood still
ANSWER_SECONDS = 0.3  # that a hung child has to dump its stack before it is killed


class Spawn(NamedTuple):
    """Start a child."""

    slot: int
    generation: int


class Retire(NamedTuple):
    """Let a child finish and end."""

    child: Child
    reason: str


class Dismiss(NamedTuple):
    """Let a retiring child end that has stayed for calls and connections, since none can come any more."""

    child: Child


class Admit(NamedTuple):
    """Count a child as ready that says nothing, since it has lived for long enough."""

    child: Child


class Question(NamedTuple):
    """Ask a hung child where it hangs."""

    child: Child


class Kill(NamedTuple):
    """Kill a child with SIGKILL."""

    child: Child
    reason: str


Action = Union[Spawn, Retire, Dismiss, Admit, Question, Kill]


class Decision(NamedTuple):
    """The actions now, and the time of the next action that no event asks for; infinity if there is none."""

    actions: list[Action]
    wake_at: float


def decide(group: Group, now: float) -> Decision:
    """Decide what to do now, and when to look again."""
    options = group.options
    actions: list[Action] = []
    for child in group.children:
        if not child.kill_reason:
            actions += _of_one(child, options.timeout, now)
            if child.stays and not group.is_awaited:
                actions.append(Dismiss(child))
    actions += _as_allowed(group, now)
    wake_at = float("inf")
    for moment in _moments(group, options, now):
        if now < moment < wake_at:
            wake_at = moment
    return Decision(actions, wake_at)


def _as_allowed(group: Group, now: float) -> Iterator[Action]:
    allows = group.phase.allows
    if group.is_held and allows.wants_children:
        return
    if group.is_lent and not allows.kills_children:
        return
    if allows.kills_children:
        yield from _kill_all(group)
    elif not allows.wants_children:
        yield from _retire_all(group, group.phase.value)
    elif group.stopped:
        yield from _retire_all(group, group.stopped)
    elif group.unled:
        yield from _retire_all(group, group.unled)
    elif group.is_kept:
        yield from _run(group, now)
    elif allows.awaits_first_boots and not group.has_begun:
        yield from (Spawn(slot, group.generation) for slot in group.vacant_slots())


def _moments(group: Group, options: Options, now: float) -> list[float]:
    """Return the times at which an action may be due without an event."""
    moments: list[float] = []
    timeout, lifetime = options.timeout, options.max_lifetime
    for child in group.children:
        if child.kill_reason:
            continue
        if child.questioned_at is not None:
            moments.append(child.questioned_at + ANSWER_SECONDS)
        elif timeout:
            overdue_at = child.silent_since + timeout + BEAT_SECONDS
            moments += (overdue_at - LATE_SECONDS, overdue_at)
        if child.kill_at is not None:
            moments.append(child.kill_at)
        if child.state is ChildState.BOOTING:
            moments += [at for at in (child.ready_by, child.counts_as_ready_at) if at is not None]
        if child.retired_at is not None:
            moments.append(child.retired_at + MOVING_SECONDS)
        elif lifetime and child.ready_at is not None:
            moments.append(child.ready_at + lifetime)
    if group.deaths and group.is_kept:
        moments += [group.start_at(slot, now) for slot in group.deaths if slot < group.places]
    if group.spawn_at > now and group.is_kept:
        moments.append(group.spawn_at)
    moments.append(group.moves_until)
    return moments


def _of_one(child: Child, timeout: float, now: float) -> list[Action]:
    """Return what a living child's own deadlines ask for."""
    actions: list[Action] = []
    is_booting = child.state is ChildState.BOOTING
    if child.questioned_at is not None:
        if now >= child.questioned_at + ANSWER_SECONDS:
            actions.append(Kill(child, HUNG))
    elif child.past_limit:
        actions.append(Kill(child, child.past_limit))
    elif child.kill_at is not None and now >= child.kill_at:
        actions.append(Kill(child, f"it did not finish in {child.stop_option}"))
    elif is_booting and child.ready_by is not None and now >= child.ready_by:
        actions.append(Kill(child, LATE))
    elif timeout and now >= child.silent_since + timeout + BEAT_SECONDS:
        actions.append(Question(child))
    if is_booting and child.counts_as_ready_at is not None and now >= child.counts_as_ready_at:
        actions.append(Admit(child))
    return actions


def _run(group: Group, now: float) -> Iterator[Action]:
    leave = list(_retire_surplus(group, now))
    yield from leave
    if now >= group.spawn_at:
        yield from _try_staged(group)
        vacant = list(_fill_slots(group, now))
        yield from vacant if vacant or leave else _replace(group, now)


def _retire_surplus(group: Group, now: float) -> Iterator[Retire | Kill]:
    """Retire or kill children beyond the wanted number, and those whose successor is ready."""
    newest: dict[int, Child] = {}
    places, staged = group.places, group.section.staged
    for child in group.children:
        if child.is_ready and child.slot < places and (staged is None or child.edition is not staged):
            best = newest.get(child.slot)
            if best is None or (child.generation, child.booted_at) >= (best.generation, best.booted_at):
                newest[child.slot] = child
    for child in group.children:
        surplus = child.slot >= places
        if staged is not None and child.edition is staged and child.is_ready:
            continue  # it is no successor before its edition is in force
        if newest.get(child.slot) is not child and child.is_ready:
            overdue = _overdue(group, child, now)
            yield Retire(child, "scaled down" if surplus else overdue.reason if overdue else "replaced")
        elif child.state is ChildState.BOOTING and not child.is_killed:
            if surplus:
                yield _send_away(child, "scaled down")
            elif (
                group.is_rolling and child.generation < group.generation
            ):  # it would be replaced as soon as it is ready
                yield _send_away(child, "reload")
        elif child.overdue and child.hears_while_booting and child.state is ChildState.BOOTING and not child.is_killed:
            yield Retire(child, child.overdue.reason)


def _try_staged(group: Group) -> Iterator[Action]:
    """Start the first child of a staged edition; it needs no vacant slot, since the edition may mend a slot."""
    staged = group.section.staged
    if staged is not None and all(
        child.generation != staged.generation or child.is_expected_to_end for child in group.children
    ):
        yield Spawn(0, staged.generation)


def _fill_slots(group: Group, now: float) -> Iterator[Action]:
    is_exclusive = group.overlap is Overlap.PREDECESSOR_FIRST
    held = {child.slot for child in group.children if is_exclusive or child.is_holding}
    for slot in group.vacant_slots():
        if slot not in held and now >= group.start_at(slot, now):
            yield Spawn(slot, group.generation)


def _replace(group: Group, now: float) -> Iterator[Action]:
    """Start one successor, for the child that is overdue longest and has none yet."""
    if group.section.staged is not None or not _may_be_overdue(group):
        return
    if now < group.moves_until or any(child.is_moving(now) for child in group.children):
        return
    if any(child.state is ChildState.BOOTING and not child.is_expected_to_end for child in group.children):
        return  # a hung one, too: its end may be the end of a reload
    retiring = sum(child.state is ChildState.RETIRING for child in group.children)
    if retiring >= group.places:
        return
    overdue = [
        (reason.since, child.slot, child.serial, child, reason.reason)
        for child in group.children
        if (reason := _overdue(group, child, now)) and now >= group.start_at(child.slot, now)
    ]
    if overdue:
        *_, child, why = min(overdue)
        if group.overlap is Overlap.SUCCESSOR_FIRST and not group.is_scheduled:
            yield Spawn(child.slot, group.generation)
        elif not retiring:
            yield Retire(child, why)


def _may_be_overdue(group: Group) -> bool:
    """Return whether `_overdue` is worth a look: mostly it is not."""
    return bool(group.is_rolling or group.options.max_lifetime or [each for each in group.children if each.overdue])


def _overdue(group: Group, child: Child, now: float) -> Overdue | None:
    """Return since when and why the child should be replaced; None if it should not."""
    if not child.is_ready or child.ready_at is None:
        return None
    lifetime, is_old = group.options.max_lifetime, group.is_rolling and child.generation < group.generation
    if not (child.overdue or is_old or lifetime):
        return None
    reasons = [child.overdue] if child.overdue else []
    if is_old:
        reasons.append(Overdue(group.rolls_since, "reload"))
    if lifetime and now >= child.ready_at + lifetime:
        reasons.append(Overdue(child.ready_at + lifetime, "max_lifetime"))
    return min(reasons, default=None)


def _retire_all(group: Group, reason: str) -> Iterator[Action]:
    for child in group.children:
        if child.is_ready or _must_hurry(group, child):
            yield Retire(child, reason)
        elif child.state is ChildState.BOOTING and not child.is_killed:
            yield _send_away(child, reason)


def _send_away(child: Child, reason: str) -> Retire | Kill:
    """End a booting child: most kinds do not hear yet."""
    return Retire(child, reason) if child.hears_while_booting else Kill(child, reason)


def _must_hurry(group: Group, child: Child) -> bool:
    """Return whether it retires for another reason, and does not know yet that connections end."""
    if child.state is not ChildState.RETIRING or child.is_killed or group.phase.allows.connections_move:
        return False
    return child.retire_reason != group.phase.value


def _kill_all(group: Group) -> Iterator[Action]:
    for child in group.children:
        if not child.is_killed:
            yield Kill(child, "quick stop")
