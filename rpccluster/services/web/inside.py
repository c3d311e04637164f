"""The half of the page's process that speaks with the master, and makes its parts. A `rpccluster.worker.parts.Inside`.

Its HTTP servers have the listeners that the master holds: a successor has them, too, before this process lets go, so no
connection is refused. Runs in the page's process, on gevent's loop.
"""

from __future__ import annotations

import socket
import time
from functools import partial

import gevent

from rpccluster.child.assignment import Assignment, RPCPart
from rpccluster.config.sections.web import Sites
from rpccluster.ipc.messages import MasterTold, Message
from rpccluster.ipc.packets import close_all
from rpccluster.services.web.asking import Asking, Overview
from rpccluster.services.web.counters import Counters
from rpccluster.services.web.hour import Hour
from rpccluster.services.web.http.guards import Rules
from rpccluster.services.web.http.messages import Answer, Request
from rpccluster.services.web.http.seats import Seats
from rpccluster.services.web.http.server import HTTPServer
from rpccluster.services.web.service import Page
from rpccluster.services.web.site import Site
from rpccluster.services.web.viewing import Viewing

__all__ = ["Inside"]

FINISH_SECONDS = 2.0  # for answers that are being sent at the end
_LOOK_SECONDS = 0.02


class Inside:
    """The process as its master hears it. ``service`` is what its engine serves."""

    def __init__(self, assignment: Assignment[RPCPart]) -> None:
        """Raises OSError if the memory of the last hour cannot be used."""
        sites: Sites = assignment.part.own
        self._asking = Asking(assignment.channel.send, assignment.serial)
        overview = Overview(self._asking.ask)
        self._viewing = Viewing(overview, Hour(assignment.part.memory))
        self._has_page = sites.web is not None
        tokens = sites.web.token_file.keys if sites.web else ()
        counters = Counters(assignment.part.metrics)
        site = Site(assignment.options.proc_name, tokens, self._asking, overview, self._viewing, counters.families)
        self._seats = Seats()
        self.service = Page(self._seats.__len__, self._finish)
        self._servers = [
            HTTPServer(listener, partial(_respond, site, _rules(sites, place, listener)), self._seats)
            for place, listener in enumerate(assignment.part.listeners)
        ]

    def start(self) -> None:
        """Serve from now on."""
        for server in self._servers:
            server.start()
        if self._has_page:
            self._viewing.start()

    def hear(self, message: Message, descriptors: list[int]) -> None:
        """Take a message, and own its descriptors."""
        close_all(descriptors)
        if isinstance(message, MasterTold):
            self._asking.hear(message)

    # -- the end

    def retire(self, *, whole_cluster: bool) -> None:
        """Accept nothing more: the successor does, or the master has closed the listeners."""
        for server in self._servers:
            server.stop_accepting_more()
        self._viewing.stop()

    @property
    def is_at_rest(self) -> bool:
        """Whether its connections may go: its engine has none."""
        return True

    def end(self) -> None:
        """End all connections where they are."""
        self._seats.end_all()

    def _finish(self) -> None:
        """Wait a moment for answers, then end all connections: those that wait for a request have had theirs."""
        self._seats.end_resting()
        ends_at = time.monotonic() + FINISH_SECONDS
        while len(self._seats) and time.monotonic() < ends_at:
            gevent.sleep(_LOOK_SECONDS)
        self._seats.end_all()


def _respond(site: Site, rules: Rules, request: Request) -> Answer:
    return site.respond(request, rules)


def _rules(sites: Sites, place: int, listener: socket.socket) -> Rules:
    """Return the rules of the listener at ``place``."""
    bound = listener.getsockname()
    address = sites.addresses()[place]
    has_metrics = sites.metrics is not None and address in sites.metrics.bind
    has_page = sites.web is not None and address in sites.web.bind
    return Rules.of(sites.web, bound[0] if isinstance(bound, tuple) else "", has_metrics=has_metrics, has_page=has_page)
