"""The workers that exist: starting them, hearing from them, burying them. Runs in the master.

Owns the scoreboard, the channels' master ends and the handles. Decides nothing:
`rpccluster.master.children.policy` does.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from typing import Callable

from rpccluster import system
from rpccluster.child.assignment import Assignment, ChildEntry, RPCPart
from rpccluster.config.sections.cluster import Options
from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.ipc.fdpass import memory_file
from rpccluster.ipc.messages import Message
from rpccluster.ipc.packets import Passing
from rpccluster.ipc.scoreboard import CommonCell, RowState, Scoreboard
from rpccluster.log import LogFiles, logger
from rpccluster.master.children.affinity import cpu_order, cpus_for_slot
from rpccluster.master.children.child import WorkerHandle
from rpccluster.master.loop import Loop
from rpccluster.master.resources.listeners import Listener
from rpccluster.system.cpus import read_topology

__all__ = ["MOST_ROWS", "Roster"]

MOST_ROWS = 1536  # three times the most workers: the present ones, their successors, those that retire slowly


class Roster:
    """All workers that were started and not yet buried."""

    def __init__(
        self,
        operating_system: system.System,
        loop: Loop,
        entry: ChildEntry,
        on_message: Callable[[WorkerHandle, Message], None],
        on_connection: Callable[[WorkerHandle, Passing, list[int]], None],
        first_serial: int,
    ) -> None:
        self._system = operating_system
        self._loop = loop
        self._entry = entry
        self._on_message = on_message
        self._on_connection = on_connection
        self._serial = first_serial - 1
        self._scoreboard = Scoreboard(MOST_ROWS)
        self._lock = memory_file(name="accept-lock")  # no folder need be writable
        self.workers: list[WorkerHandle] = []

    @property
    def next_serial(self) -> int:
        """No worker has had this serial or a higher one."""
        return self._serial + 1

    def spawn(
        self, slot: int, generation: int, options: Options, listeners: Sequence[Listener], logs: LogFiles
    ) -> WorkerHandle | None:
        """Start a worker. None if the system has no process or descriptor, or the scoreboard no row, left."""
        row_number = self._scoreboard.take_row()
        if row_number is None:
            logger.error("Cannot start a worker: %d exist", len(self.workers))
            return None
        self._serial += 1
        ends: list[Channel] = []
        try:
            ends += channel_pair()
            ends += channel_pair()
            assignment = self._assign(slot, generation, options, listeners, logs, row_number, ends[1], ends[3])
            pid = self._system.fork()
        except (OSError, MemoryError) as error:
            logger.error("Cannot start a worker: %s", error)
            self._give_up(row_number, ends)
            return None
        ours, theirs, connections, far_end = ends
        if pid == 0:
            self._entry(assignment)
        theirs.close()
        try:
            return self._enrol(assignment, pid, ours, connections, far_end)
        except (OSError, MemoryError) as error:  # epoll_ctl(2) has limits of its own
            logger.error("Cannot watch the worker (pid: %d): %s", pid, error)
            self._system.kill(pid, signal.SIGKILL)
            self._give_up(row_number, ends)
            return None

    def _give_up(self, row_number: int, ends: list[Channel]) -> None:
        self._scoreboard.free_row(row_number)
        for end in ends:
            self._loop.unwatch(end)
            end.close()

    def _assign(
        self,
        slot: int,
        generation: int,
        options: Options,
        listeners: Sequence[Listener],
        logs: LogFiles,
        row_number: int,
        channel: Channel,
        connections: Channel,
    ) -> Assignment[RPCPart]:
        """What the worker is born with."""
        self._scoreboard.row(row_number)[CommonCell.STATE] = RowState.BOOTING
        allowed = system.allowed_cpus()
        return Assignment(
            kind="rpc",
            name=f"worker {slot}",
            slot=slot,
            generation=generation,
            options=options,
            cpus=cpus_for_slot(cpu_order(options.cpu_affinity, allowed, read_topology(allowed)), slot),
            row_number=row_number,
            scoreboard=self._scoreboard,
            serial=self._serial,
            channel=channel,
            master_pid=self._system.getpid(),
            logs=logs,
            part=RPCPart(
                call_limit=_call_limit(options),
                connections=connections,
                listeners=[listener.socket for listener in listeners],
                accept_lock=self._lock,
            ),
        )

    def _enrol(
        self, assignment: Assignment[RPCPart], pid: int, channel: Channel, connections: Channel, far_end: Channel
    ) -> WorkerHandle:
        """The handle of a worker that has just been forked, watched from now on."""
        worker = WorkerHandle(
            slot=assignment.slot,
            pid=pid,
            generation=assignment.generation,
            row_number=assignment.row_number,
            row=assignment.row,
            serial=assignment.serial,
            channel=channel,
            connections=connections,
            far_end=far_end,
            cpus=assignment.cpus or sorted(system.allowed_cpus()),
            booted_at=self._system.monotonic(),
        )
        self._loop.watch(connections, lambda: self.hear_connections(worker))
        self._loop.watch(channel, lambda: self.hear(worker))
        self.workers.append(worker)
        logger.info("Booting worker with pid: %d", pid)
        return worker

    def hear(self, worker: WorkerHandle) -> None:
        """Take what a worker said."""
        for message, descriptors in worker.channel.receive():
            for descriptor in descriptors:
                os.close(descriptor)
            self._loop.guard.attempt("heed what a worker says", self._on_message, worker, message)
        if worker.channel.is_closed:
            self._loop.unwatch(worker.channel)

    def hear_connections(self, worker: WorkerHandle) -> None:
        """Take the connections that a worker gives, and what it says of them."""
        for message, descriptors in worker.connections.receive_unopened():
            self._loop.guard.attempt("move a connection", self._on_connection, worker, message, descriptors)

    def say(self, worker: WorkerHandle, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send to a worker; a dead one is no error. What cannot be sent, for want of descriptors, is logged."""
        if not worker.channel.is_closed:
            self._loop.guard.attempt("tell a worker something", worker.channel.send, message, descriptors)
            self._loop.mind_writing(worker.channel)

    def signal(self, worker: WorkerHandle, signum: int) -> None:
        """Send a worker a signal; its pid is its own until it is buried."""
        self._system.kill(worker.pid, signum)

    def kill(self, worker: WorkerHandle, reason: str) -> None:
        """End a worker now."""
        worker.kill_reason = reason
        self.signal(worker, signal.SIGKILL)

    def bury(self) -> Iterator[tuple[WorkerHandle, system.Exit]]:
        """Yield each worker that has ended, after its last words, and forget it; foreign children go silently.

        What it has left in its process group, children of the service, is killed.

        Its channels are open, and its row is as it left it, until the next is asked for.
        """
        by_pid = {worker.pid: worker for worker in self.workers}
        for exit_ in self._system.reap(by_pid):
            worker = by_pid.get(exit_.pid)
            if worker is None:
                continue
            self._loop.guard.attempt("hear the last words of a worker", self._hear_out, worker)
            self._loop.unwatch(worker.connections)
            self._loop.unwatch(worker.channel)
            self.workers.remove(worker)
            yield worker, exit_
            self._scoreboard.free_row(worker.row_number)
            worker.close()

    def _hear_out(self, worker: WorkerHandle) -> None:
        self.hear_connections(worker)
        if not worker.channel.is_closed:
            self.hear(worker)


def _call_limit(options: Options) -> int:
    """``max_requests`` with this worker's jitter."""
    if not options.max_requests:
        return 0
    return options.max_requests + random.randint(0, options.max_requests_jitter)
