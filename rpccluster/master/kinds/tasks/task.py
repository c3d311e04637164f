"""The kind of task processes: places, limits, and what the dispatcher is told. Runs in the master.

A `rpccluster.master.kinds.kind.Kind`. The dispatcher is told at once, before anything else is done: a fork takes a
millisecond, for which a task that has ended, or one that waits for the spare, need not wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Callable

from rpccluster.child.assignment import TaskPart
from rpccluster.ipc.messages import BootFailed, Message, Ready, Switch, TaskProcessGone, WantsToRetire
from rpccluster.ipc.packets import Passing, close_all
from rpccluster.ipc.scoreboard import CommonCell, TaskCell
from rpccluster.log import logger
from rpccluster.master.children.actions import cpus_of
from rpccluster.master.children.child import Birth, Child, ChildState
from rpccluster.master.children.group import Group
from rpccluster.master.kinds.kind import Booted, KindEvent
from rpccluster.master.kinds.tasks import limits
from rpccluster.master.kinds.tasks.places import moves
from rpccluster.master.kinds.tasks.process import CANCELLED, LOST, TaskProcess, as_process
from rpccluster.system import resident_bytes
from rpccluster.system.processes.descendants import descendants

__all__ = ["Task", "Tell"]

IDLE_LOOK_SECONDS = 0.5  # between two looks at the memory of a process without a task
_MOST_OBITUARIES = 1000


#: Tells the dispatcher a message; the descriptors stay the master's. It drops what nobody can be told.
Tell = Callable[[Message, Sequence[int]], None]


class Task:
    """The kind of the processes of all pools."""

    name = "task"
    noun = "pool"

    def __init__(self, tell: Tell, say: Callable[[Child, Message], None]) -> None:
        """``say`` sends a message to a process itself."""
        self._tell = tell
        self._say = say
        self._obituaries: deque[TaskProcessGone] = deque(maxlen=_MOST_OBITUARIES)

    def introduce(self, groups: Iterable[Group]) -> None:
        """Tell a new dispatcher of all processes that it may use, and of the last ones that have ended.

        The one before it may have been killed before it heard of an end; then only this says what had begun there.
        """
        for gone in self._obituaries:
            self._tell(gone, [])
        for group in groups:
            for child in group.children:
                if isinstance(child, TaskProcess) and child.is_given:
                    self._tell(*child.introduction())

    def cancel(self, groups: Iterable[Group], serial: int, number: int) -> bool:
        """Kill the process ``serial`` if it still runs the task ``number``; with 0, whatever it does.

        Returns whether it is killed.
        """
        children = (child for group in groups for child in group.children if child.serial == serial)
        for child in children:
            if isinstance(child, TaskProcess) and number:
                return child.condemn(number, CANCELLED)
            child.past_limit = LOST
            return True
        return False

    # -- what a kind does

    def equip(self, birth: Birth) -> tuple[TaskProcess, TaskPart]:
        section: Any = birth.edition
        child = TaskProcess(birth, section.name)
        return child, child.part()

    def hear(self, child: Child, message: Passing, descriptors: list[int], now: float) -> KindEvent | None:
        close_all(descriptors)
        if isinstance(message, Ready):
            return Booted(child)
        if isinstance(message, BootFailed):
            child.last_words, child.is_service_at_fault = message.text, message.stage == "service"
        if isinstance(message, WantsToRetire) and child.state is ChildState.READY:
            options: Any = child.edition.options  # it begins no task any more, and ends by itself
            child.note_retirement(message.reason, now, now + options.stop_timeout)
        return None

    def arrange(self, group: Group, now: float) -> None:
        """Move spares to where a process is missing, and give the dispatcher those that are for tasks."""
        for child, slot in moves(group.children, group.wanted):
            as_process(child).move(slot, cpus_of(group.options.cpu_affinity, slot))
        for each in group.children:
            process = as_process(each)
            self._update(process, group)
            if process.is_killed and process.condemned:
                self._bury(process)
            elif process.is_ready and process.slot < group.wanted and not process.is_given:
                process.is_given = True
                self._tell(*process.introduction())
            elif process.is_ready and process.is_given and process.slot >= group.wanted:
                process.want_recycling(now, "scaled down")

    def _bury(self, process: TaskProcess) -> None:
        """Tell the dispatcher that a process has ended, or begins nothing more and is killed for its task.

        That is over as soon as KILL was sent: where many want the CPU, the end itself may take its time.
        """
        if process.is_given:
            process.is_given = False
            gone = process.obituary()
            self._obituaries.append(gone)
            self._tell(gone, [])

    def _update(self, process: TaskProcess, group: Group) -> None:
        """Send it the settings in force before its next task, if they are others than it has."""
        section: Any = group.section
        if process.settings_version != section.settings_version:
            given = section.settings
            process.settings_version = section.settings_version
            self._say(process, Switch(given.number, dict(given.texts), dict(given.places)))
            process.row[TaskCell.SETTINGS] = given.number

    def look(self, group: Group, child: Child, now: float) -> float | None:
        """Look at the task that runs, and at the memory."""
        process = as_process(child)
        if process.is_killed or process.past_limit or process.ready_at is None:
            return None
        most, number = group.options.max_memory, process.number
        seen = limits.Seen(number, process.row[TaskCell.DEADLINE] / 1e9, was_over=process.was_over)
        if limits.wants_memory(number, process.looked_at, most, now):
            seen = seen._replace(own=resident_bytes(process.pid), children=_of_descendants(process.pid))
            process.looked_at = now
        elif most and not number and now >= process.looked_at + IDLE_LOOK_SECONDS:
            process.looked_at = now
            process.row[CommonCell.RSS_BYTES] = resident_bytes(process.pid)
        verdict = limits.judge(seen, most, process.looked_at, now)
        process.was_over = verdict.is_over
        if not verdict.cause:
            return verdict.again_at
        if process.condemn(number, verdict.cause):
            told = "The task of %s (pid: %d, slot: %d) is past its limit: %s"
            logger.info(told, group.noun, process.pid, process.slot, verdict.cause)
        return now

    def note_end(self, child: Child) -> KindEvent | None:
        self._bury(as_process(child))
        return None

    def forget(self, group: Group) -> None:
        """A pool holds nothing of its own."""

    def status(self, child: Child, now: float) -> dict[str, Any]:
        process = as_process(child)
        started_at = process.row[TaskCell.STARTED_AT] / 1e9 if process.number else None
        return {
            "rss_bytes": resident_bytes(child.pid),
            "tasks": process.row[TaskCell.TASKS],
            "task_started_at": started_at,
            "settings_version": process.row[CommonCell.SETTINGS_VERSION],
            "is_spare": not (process.is_given or process.condemned),
        }


def _of_descendants(pid: int) -> int:
    return sum(resident_bytes(each) for each in descendants(pid))
