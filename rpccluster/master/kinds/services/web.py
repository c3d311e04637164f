"""The process of the page as its master sees it, and the answers to what it asks. Runs in the master.

The process asks over its channel, so that it needs neither a control socket nor the right to use one. It gets what the
methods of the control socket answer: ``status``, and more only where ``[web]`` lets those who have a token act.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rpccluster.child.assignment import RPCPart
from rpccluster.child.own_code import OwnCode
from rpccluster.failure import error_text
from rpccluster.ipc.messages import AskMaster, MasterTold, Message
from rpccluster.master.children.child import Birth, Child
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.counts import Counts
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.rpc import RPCWorker
from rpccluster.master.kinds.services.own_service import OwnService, ServiceProcess
from rpccluster.master.resources.service_listeners import WEB

__all__ = ["ACTIONS", "READINGS", "Showing", "WebProcess", "WebService"]

READINGS = frozenset({"status", "pool.list"})
ACTIONS = frozenset({"reload", "scale", "plugin.start", "plugin.stop", "plugin.restart"})

#: A method of the control socket; it gets the params and the answer to fill in.
Method = Callable[["list[Any]", Any], None]


class WebProcess(ServiceProcess):
    """The process that serves ``/metrics`` and the page."""

    accepts_more = False


class WebService(OwnService):
    """The kind of that process."""

    _child = WebProcess

    def __init__(self, own_code: OwnCode | None, counts: Counts) -> None:
        """``counts`` has the file that its process reads."""
        super().__init__("web", own_code)
        self.counts = counts

    def equip(self, birth: Birth) -> tuple[RPCWorker, RPCPart]:
        child, part = super().equip(birth)
        return child, replace(part, metrics=self.counts.descriptor)


class Showing:
    """The conversation with the processes of the page; two of them live at once while one follows another."""

    def __init__(
        self, cluster: Cluster, web: OwnService, roster: Roster, methods: Callable[[], Mapping[str, Method]]
    ) -> None:
        """``methods`` returns those of the control socket."""
        self._cluster = cluster
        self._web = web
        self._roster = roster
        self._methods = methods

    def introduce(self, groups: Groups) -> None:
        """A process that has just become ready asks for what it wants."""

    def turn(self, groups: Groups) -> None:
        """It is told nothing that it has not asked for."""

    def hear(self, message: Message, groups: Groups) -> None:
        """Answer what a process asks."""
        if not isinstance(message, AskMaster):
            return
        child = next((each for each in self._web.processes() if each.serial == message.serial), None)
        if child is None:
            return
        answer = _Answer(self._roster, child, message.number)
        method = self._methods().get(message.method) if message.method in self._allowed() else None
        if method is None:
            answer(f"found {message.method!r}, expected a method that the page may use", None)
            return
        try:
            method(message.params, answer)
        except Exception as error:
            answer(error_text(error), None)

    def _allowed(self) -> frozenset[str]:
        own = self._cluster.configuration.others.get(WEB)
        return READINGS | ACTIONS if getattr(own, "actions", False) else READINGS

    def note_end(self, child: Child) -> None:
        """A process that has ended awaits nothing."""


class _Answer:
    """Sends one outcome to the process that has asked; a `rpccluster.master.control.server.Answer`."""

    def __init__(self, roster: Roster, child: Child, number: int) -> None:
        self._roster = roster
        self._child = child
        self._number = number

    @property
    def uid(self) -> int:
        """The uid that the history notes: the page acts for the cluster."""
        return os.geteuid()

    @property
    def is_awaited(self) -> bool:
        """Whether the process lives."""
        return not self._child.channel.is_closed

    def __call__(self, error: str | None, result: Any) -> None:
        self._roster.say(self._child, MasterTold(self._number, error or "", result))
