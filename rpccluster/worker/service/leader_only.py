"""``leader_only``: a method runs only where the cluster leads. Runs in the worker; costs other methods nothing.

The lease is compared with the clock before the call begins, and again before its reply leaves, when the replies of a
turn are sent (`rpccluster.worker.hot.led`). For that each call is noted at the connection that gets its reply. So a
process that was stopped anywhere between notices it, whoever else was stopped.
"""

from __future__ import annotations

import functools
import inspect
import time
from typing import Any, Callable

from rpccluster.errors import NotLeader
from rpccluster.leading.page import BEGINS_NS, ENDS_NS, TOKEN, LeadPage
from rpccluster.worker.service.later import HeldBack, Parked

__all__ = ["LED", "LOST_TEXT", "Leading"]

LOST_TEXT = "LeadLost: the lead ended while the call ran, which may have done its work"
LED = "__led__"  # the attribute of a wrapped function with the function in it, for an engine that compares itself


class Leading:
    """Wraps methods that are ``leader_only``, and knows whether a call that began may still be answered."""

    def __init__(self, page: LeadPage) -> None:
        self.page = page
        self.cells = page.cells

    def refusal(self) -> NotLeader:
        """Make the error of a call that may not begin."""
        return NotLeader(message=self.page.leader().address or "none")

    def token_in_force(self) -> int:
        """Return the token of the lead that this cluster has at this instant; -1 if it has none."""
        is_leading = self.cells[ENDS_NS] > time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return int(self.cells[TOKEN]) if is_leading else -1  # the token last: a later lead has another one

    def is_lost(self, token: int) -> bool:
        """Return whether the lead under which a call has begun is over."""
        return token != self.token_in_force()

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the way into a method, for calls that run in a runner or are handed over there."""
        from greenlet import getcurrent  # late: the master reads this module, and knows no greenlet

        cells, clock, boot, begins, token_at = self.cells, time.clock_gettime_ns, time.CLOCK_BOOTTIME, BEGINS_NS, TOKEN

        def leads(*params: Any) -> Any:
            if cells[begins] <= clock(boot):
                raise self.refusal()
            token = cells[token_at]
            try:
                result = function(*params)
            except BaseException as raised:
                if type(raised) is Parked:
                    raised.token = token
                elif type(raised) is not HeldBack:
                    note(token)
                raise
            runner: Any = getcurrent()  # as `note` does it: each call pays for a further function
            outbox = runner.outbox
            if outbox is not None:
                noted = outbox.led
                if noted and outbox.led_token == token:
                    noted.append(runner.call)
                else:
                    outbox.note_led(runner.call, token)
            return result

        def note(token: int) -> None:
            runner: Any = getcurrent()
            if runner.outbox is not None:
                runner.outbox.note_led(runner.call, token)

        setattr(leads, LED, function)
        return leads

    def checked(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a method that begins elsewhere than it was called: in a thread, or on the asyncio loop."""
        if inspect.iscoroutinefunction(method):

            @functools.wraps(method)
            async def leads_there(*params: Any) -> Any:
                self._check()
                return await method(*params)

            return leads_there

        @functools.wraps(method)
        def leads(*params: Any) -> Any:
            self._check()
            return method(*params)

        return leads

    def _check(self) -> None:
        if self.cells[BEGINS_NS] <= time.clock_gettime_ns(time.CLOCK_BOOTTIME):
            raise self.refusal()
