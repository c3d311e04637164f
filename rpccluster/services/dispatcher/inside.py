"""The dispatcher's half that speaks with the master: pools and processes come and go, and it may have to end.

A `rpccluster.worker.parts.Inside`. After an earlier dispatcher it finds out what that one has left. Runs in the
dispatcher, on gevent's loop.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Callable

from rpccluster.child.assignment import Assignment, RPCPart
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Findings, Inquire, KillTask, Message, Pools, TaskProcess, TaskProcessGone
from rpccluster.ipc.packets import close_all
from rpccluster.log import logger
from rpccluster.pools.program.link import RECEIVE_BYTES
from rpccluster.services.dispatcher.dispatch import Dispatch
from rpccluster.services.dispatcher.draining import Drains
from rpccluster.services.dispatcher.journal import Entry, Journal
from rpccluster.services.dispatcher.link import TaskLink
from rpccluster.services.dispatcher.recovery import (
    CLAIM_SECONDS,
    Fate,
    Finding,
    Left,
    of_gone,
    of_living,
)
from rpccluster.services.dispatcher.service import Dispatcher
from rpccluster.services.dispatcher.submitters import Submitters
from rpccluster.tasks.wire import Done

__all__ = ["Inside"]

BEGIN_SECONDS = 1.0  # in which a process begins what it was sent for an earlier dispatcher, or was never sent it wholly
END_SECONDS = 0.5  # in which a dispatcher that ends completes the messages that are under way


class Inside:
    """The dispatcher as its master hears it. ``service`` is what it serves."""

    def __init__(self, assignment: Assignment[RPCPart], loop: Any) -> None:
        """Raises OSError if the journal cannot be read."""
        self._loop = loop
        self._channel: Channel = assignment.channel
        self._scoreboard = assignment.scoreboard
        self._journal = Journal(assignment.part.memory)
        self._left = Left(self._journal.entries())
        submitters = Submitters(loop, time.monotonic_ns(), self._forget)
        self._dispatch = Dispatch(loop, self._journal, submitters, self._kill)
        self.service = Dispatcher(self._dispatch, submitters, self._journal, self._left)
        self._drains = Drains(self.service.take_in, self._dispatch.size, self._journal.clear)
        self._cut: dict[int, TaskLink] = {}  # processes that are being killed, by serial
        self._timers: list[Any] = []
        self._space = bytearray(RECEIVE_BYTES)

    def _forget(self, submitter: Any) -> None:
        self.service.forget(submitter)

    def _kill(self, serial: int, number: int) -> None:
        self._channel.send(KillTask(serial, number))

    def start(self) -> None:
        """Begin to wait for what the master tells of the processes of an earlier dispatcher."""
        if self._journal.is_of_another_format:
            logger.warning(
                "Another build's dispatcher has left tasks in a form unknown here: their processes are ended"
            )
        if len(self._journal):
            logger.info("The dispatcher before this one has left %d tasks", len(self._journal))
            self._dispatch.keeps_unclaimed = True
            self._after(CLAIM_SECONDS, self._give_up_unclaimed)

    def _after(self, seconds: float, do: Callable[..., object], *arguments: Any) -> None:
        timer = self._loop.timer(seconds)
        timer.start(do, *arguments)
        self._timers.append(timer)

    # -- what the master says

    def hear(self, message: Message, descriptors: list[int]) -> None:
        """Take a message, and own its descriptors."""
        if isinstance(message, TaskProcess):
            if len(descriptors) == 3:
                self._join(TaskLink(message, descriptors, self._scoreboard.row(message.row), self._journal), message)
                return
            logger.error("Lost a process of the pool %s: no descriptor is free", message.pool)
        elif isinstance(message, TaskProcessGone):
            self._note_gone(message)
        elif isinstance(message, Pools):
            self._dispatch.set_pools(message.pools)
            self._drains.set_pools(message.pools)
            if not self.service.is_open:
                self._give_up_processes()
            self.service.is_open = True
        elif isinstance(message, Inquire):
            self._channel.send(self._told(message))
        close_all(descriptors)

    def _join(self, link: TaskLink, message: TaskProcess) -> None:
        entries = self._left.take(link.serial)
        running, begun = link.running, link.begun
        tickets = link.take_back()
        is_unreadable = self._journal.is_of_another_format and not self.service.is_open
        if is_unreadable or self._journal.is_cut(message.row, link.serial):
            self._cut_off(link, entries, tickets)
            return
        dones = [each for each in link.receive(self._space) if isinstance(each, Done)]
        findings = list(of_living(entries, tickets, dones, running, begun))
        runs = [finding for finding in findings if finding.fate is Fate.RUNS]
        if len(runs) > 1:
            self._cut_off(link, [finding.entry for finding in runs], ())
            findings = [finding for finding in findings if finding not in runs]
        tasks = self.service.settle(findings)
        if len(runs) > 1:
            return
        self._dispatch.join(link, tasks[0] if tasks else None)
        if runs and runs[0].entry.number != running:
            self._after(BEGIN_SECONDS, self._check_begun, link, runs[0].entry.number)

    def _cut_off(self, link: TaskLink, entries: list[Entry], tickets: Collection[int]) -> None:
        """Have a process killed that an earlier dispatcher has left in the middle of a message."""
        back = [entry for entry in entries if entry.number in tickets]
        self._cut[link.serial] = link
        self._left.add(entry for entry in entries if entry not in back)
        self.service.settle([Finding(entry, Fate.NOT_BEGUN) for entry in back])
        self._kill(link.serial, 0)

    def _check_begun(self, link: TaskLink, number: int) -> None:
        """Have a process killed that waits for the rest of a task which nobody will send."""
        tasks = link.process.tasks
        if tasks and tasks[0].number == number and link.begun < number:
            self._kill(link.serial, 0)

    def _note_gone(self, message: TaskProcessGone) -> None:
        if message.serial in self._cut:
            self._cut.pop(message.serial).close()
        if message.serial in self._dispatch.links:
            self._dispatch.bury(message)
        else:
            self.service.settle(list(of_gone(self._left.take(message.serial), message)))

    def _give_up_processes(self) -> None:
        """Count processes of which the master has not told as ended with all that they had."""
        for serial in self._left.serials():
            if serial in self._cut:  # its end is told
                continue
            self.service.settle(list(of_gone(self._left.take(serial), None)))

    def _give_up_unclaimed(self) -> None:
        ended = self._dispatch.end_unclaimed()
        if ended:
            logger.warning("%d tasks run that nobody waits for any more: they are ended", ended)

    def _told(self, asked: Inquire) -> Findings:
        try:
            return Findings(asked.number, _ANSWERS[asked.what](self._dispatch, *asked.params))
        except (KeyError, TypeError, ValueError) as error:
            return Findings(asked.number, None, f"RuntimeError: {error.args[0] if error.args else error}")

    # -- the end

    def retire(self, *, whole_cluster: bool) -> None:
        """Begin no other task, and let submitters ask again and again, until the successor answers."""
        self._drains.retire()
        self.service.retire()
        self._dispatch.drain()

    @property
    def is_at_rest(self) -> bool:
        """Whether no task runs any more, and each submitter has heard what there was to tell."""
        return self._dispatch.is_drained and self._drains.is_at_rest and self.service.is_at_rest

    def end(self) -> None:
        """Stop at the end of a message in each direction, though tasks run: they are the successor's."""
        until = time.monotonic() + END_SECONDS
        while not self._dispatch.complete() and time.monotonic() < until:
            pass


def _tasks(dispatch: Dispatch, name: str) -> list[dict[str, Any]]:
    if name not in dispatch.pools:
        raise ValueError(f"found the pool {name!r}, expected one of: {', '.join(dispatch.pools) or 'none'}")
    return dispatch.shown(dispatch.pools[name])


def _cancel(dispatch: Dispatch, task_id: int) -> bool:
    if not dispatch.cancel(task_id):
        raise ValueError(f"no task {task_id} waits or runs")
    return True


_ANSWERS: dict[str, Callable[..., Any]] = {"list": Dispatch.counts, "tasks": _tasks, "cancel": _cancel}
