"""Listeners that are open while the cluster leads: opened, closed, and tried again where that fails."""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.address import TCPAddress
from rpccluster.config.sections.cluster import Options
from rpccluster.leading.page import LeadPage
from rpccluster.leading.store import NOBODY, Standing
from rpccluster.master.changes.led_listeners import LedListeners
from rpccluster.master.phases import Phase
from rpccluster.master.resources.listeners import close_listeners
from rpccluster.system import Activation

from ..made_up import group


class MadeUpCluster(SimpleNamespace):
    """What is asked of a cluster here."""

    @property
    def unled(self) -> str:
        return "" if self.lead.is_leading else "nobody leads"


class Rig:
    """A cluster of which only the leader serves, by a made-up clock."""

    def __init__(self) -> None:
        self.now_ns = 10**9
        options = Options(service="a:b", bind=(TCPAddress("127.0.0.1", 0),))
        self.page = LeadPage(clock=lambda: self.now_ns)
        self.given_up: list[str] = []
        self.cluster: Any = MadeUpCluster(
            configuration=SimpleNamespace(
                others={"leadership": SimpleNamespace(scope="cluster")}, fault=lambda key, problem: f"{key}: {problem}"
            ),
            options=options,
            lead=self.page,
            phase=Phase.RUNNING,
            listeners=[],
            activation=Activation(),
        )
        self.workers = group(number_workers=1)
        ownership: Any = SimpleNamespace(close_listeners=self._close)
        reloading: Any = SimpleNamespace(give_up=self.given_up.append)
        self.led = LedListeners(self.cluster, self.workers, ownership, reloading, contextlib.nullcontext)

    def _close(self) -> None:
        close_listeners(self.cluster.listeners, is_last=True)
        self.cluster.listeners.clear()

    def lead(self, seconds: float = 3.0) -> None:
        self.page.show(Standing(1, "tcp://here:1", self.now_ns + round(seconds * 1e9)), 4.0)

    def turn(self, now: float = 100.0) -> str:
        return self.led.turn([self.workers], now)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made._close()


def test_they_follow_the_lead(rig: Rig) -> None:
    """Open with it; when it ends they are closed, and a reload under way is given up."""
    assert rig.turn() == "nobody leads" and rig.cluster.listeners == []
    rig.lead()
    assert rig.turn() == "" and len(rig.cluster.listeners) == 1
    assert rig.led.wake_at == pytest.approx(103.0), "when the lease ends nobody need say so"
    address = rig.cluster.listeners[0].actual
    socket.create_connection((address.host, address.port), 5).close()
    rig.now_ns += 4 * 10**9
    assert rig.turn() == "nobody leads" and rig.cluster.listeners == []
    assert rig.given_up == ["overtaken: nobody leads"] and rig.led.wake_at == math.inf
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port), 5)


def test_what_cannot_be_opened_is_tried_again(rig: Rig) -> None:
    """After a pause; meanwhile the workers wait, with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        rig.cluster.options = Options(service="a:b", bind=(TCPAddress("127.0.0.1", taken.getsockname()[1]),))
        rig.lead(10)
        assert "cannot listen" in rig.turn(100.0) and rig.led.wake_at == 101.0
    assert "cannot listen" in rig.turn(100.5)
    rig.page.show(NOBODY, 4.0)
    rig.turn(100.6)
    rig.lead(10)
    assert rig.turn(100.7) == "" and len(rig.cluster.listeners) == 1, "with a new lead it is tried at once"


@pytest.mark.parametrize("phase", [Phase.JOINING, Phase.STANDBY, Phase.STOPPING, Phase.LEAVING])
def test_nothing_is_opened_or_closed_while_another_master_or_nobody_serves(rig: Rig, phase: Phase) -> None:
    """They are the old master's, or the cluster ends."""
    rig.cluster.phase = phase
    rig.lead()
    assert rig.turn() == "" and rig.cluster.listeners == []


def test_where_all_serve_nothing_depends_on_it(rig: Rig) -> None:
    """With scope = methods, the workers need no lead, and the clock is not asked."""
    rig.cluster.configuration.others["leadership"].scope = "methods"
    assert rig.turn() == "" and not rig.workers.needs_lead and rig.led.wake_at == math.inf
