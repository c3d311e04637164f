"""The keeper's half that speaks with the master: which queues there are, and when it has to end.

A `rpccluster.worker.parts.Inside`. Makes the parts of the keeper, and ends sessions whose consumers have gone. Runs in
the keeper, on gevent's loop.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import monotonic
from typing import Any

from rpccluster.child.assignment import Assignment, RPCPart
from rpccluster.child.life import EXIT_CRASHED
from rpccluster.config.kept_queues import KeptQueues
from rpccluster.config.sections.queues import QueueOptions
from rpccluster.ipc.messages import Inquire, Message, Queues
from rpccluster.ipc.packets import close_all
from rpccluster.log import logger
from rpccluster.queues.engine import EndSession, Rules
from rpccluster.services.keeper.batches import Batches
from rpccluster.services.keeper.desk import Desk
from rpccluster.services.keeper.engines import make_engine
from rpccluster.services.keeper.inquiries import Inquiries
from rpccluster.services.keeper.note import Note
from rpccluster.services.keeper.patience import Patience
from rpccluster.services.keeper.service import Keeper
from rpccluster.services.keeper.sessions import Bound, Sessions

__all__ = ["Inside"]

ENDS = "the keeper ends with its cluster"


class Inside:
    """The keeper as its master hears it. ``service`` is what it serves, ``sessions`` follows its connections."""

    def __init__(self, assignment: Assignment[RPCPart], loop: Any) -> None:
        """Raises `StartError` if the engine cannot open what was kept."""
        kept: KeptQueues = assignment.part.own
        self._loop = loop
        self._logs = assignment.logs
        self._engine = make_engine(kept, assignment.part.listeners[0].getsockname())
        holders = self._engine.open()
        for warning in self._engine.warnings():
            logger.warning("%s", warning)
        self._grace = kept.options.session_grace
        self._configure(kept.options.create, kept.queues)
        self._batches = Batches(self._engine, loop, self._fail)
        patience = Patience(loop, monotonic, self._batches.busy_since) if self._engine.may_be_silent else None
        self._desk = Desk(self._batches, loop, monotonic, patience)
        note = Note(assignment.part.memory)
        self.sessions = Sessions(note, self._end_session, self._let_go, self._desk.withdraw)
        self.sessions.expect(holders)
        self.service = Keeper(kept.options, self._desk, self.sessions, self._batches.close)
        self._inquiries = Inquiries(self.service, assignment.channel.send)
        self._timers: list[Any] = []

    def _configure(self, create: bool, queues: Mapping[str, QueueOptions]) -> None:
        self._engine.configure({name: _rules(own) for name, own in queues.items()}, Rules() if create else None)

    def start(self) -> None:
        """Wait for the consumers that had items from before."""
        timer = self._loop.timer(self._grace)
        timer.start(self._give_up_sessions)
        self._timers.append(timer)
        self._batches.wake()

    def _give_up_sessions(self) -> None:
        missing = self.sessions.give_up()
        if missing:
            logger.info("%d consumers have not come back: their items go to others", len(missing))
        for session in missing:
            self._batches.add(EndSession(session, counts=False), _ignore)

    def _end_session(self, session: bytes) -> None:
        self._batches.add(EndSession(session), _ignore)

    def _let_go(self, bound: Bound) -> None:
        self._desk.let_go(list(bound.calls))

    def _fail(self, error: BaseException) -> None:
        """End at once, since what has been written is not known: nothing more is answered."""
        logger.critical("The keeper starts anew: %s", error, exc_info=None if str(error) else error)
        self._logs.flush()
        os._exit(EXIT_CRASHED)

    # -- what the master says

    def hear(self, message: Message, descriptors: list[int]) -> None:
        """Take a message, and own its descriptors."""
        close_all(descriptors)
        if isinstance(message, Queues):
            self._grace = message.session_grace
            self._configure(message.create, {name: QueueOptions(**own) for name, own in message.queues.items()})
            self._batches.wake()
        elif isinstance(message, Inquire):
            self._inquiries.hear(message)

    # -- the end

    def retire(self, *, whole_cluster: bool) -> None:
        """Begin nothing more; what waits is left to the successor, or refused if there will be none."""
        if whole_cluster:
            self.service.is_retiring = False
            self._desk.refuse(ENDS)
        else:
            self.service.retire()

    @property
    def is_at_rest(self) -> bool:
        """Whether all that has begun is committed and answered."""
        return self._batches.is_idle

    def end(self) -> None:
        """Stop where it is: what runs is committed, and its answers are lost."""


def _rules(own: QueueOptions) -> Rules:
    return Rules(
        lease=own.lease,
        max_attempts=own.max_attempts,
        max_size=own.max_size or None,
        max_bytes=own.max_bytes or None,
        expires=own.expires or None,
        dedup_window=own.dedup_window,
    )


def _ignore(answer: Any) -> None:
    pass
