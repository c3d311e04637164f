"""The time limit of a call: interrupts a method at its next switch once its time is over. Runs in the worker.

``call_timeout``, a method's own timeout, and the deadline that the caller has set (``rpc.call``) are limits. Most calls
end without a switch, and nothing could interrupt them: a limit has a timer only if its call goes on when the worker's
loop goes on, which then calls `arm_limits`.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Callable

from greenlet import getcurrent

from rpccluster.worker.current import CallTimedOut
from rpccluster.worker.service.later import Parked

__all__ = ["FRESH", "TimeLimit", "arm_limits", "bound"]

#: The limits of calls that have begun since the loop's last turn and have not ended, without timers.
FRESH: list[TimeLimit] = []


def bound(function: Callable[..., Any], seconds: float, on_passed: Callable[[], object]) -> Callable[..., Any]:
    """Wrap ``function`` to be interrupted at its next switch once ``seconds`` have passed; 0 means no limit.

    The wrapper then raises TimeoutError, whatever the method does with the interruption, and calls ``on_passed``. The
    limit of a call that is answered later goes on. A sooner limit of the same call makes this one superfluous.
    """
    if not seconds:
        return function
    text = f"the call took longer than {seconds:g} seconds"

    def limited(*params: Any) -> Any:
        runner: Any = getcurrent()
        outer, ends_at = runner.limit, monotonic() + seconds
        if outer is not None and outer.ends_at <= ends_at:
            return function(*params)
        limit = runner.limit = TimeLimit(runner, ends_at, text, on_passed)
        try:
            result = function(*params)
        except BaseException as error:
            runner.limit = outer
            if type(error) is Parked:
                error.limit = limit
                raise
            limit.end()
            if limit.is_passed:
                raise TimeoutError(text) from error
            raise
        runner.limit = outer
        limit.end()
        if limit.is_passed:
            raise TimeoutError(text)
        return result

    return limited


class TimeLimit:
    """The time limit of one call, until ``ends_at`` in monotonic seconds.

    It calls ``interrupt`` with `CallTimedOut` when it passes.
    """

    __slots__ = ("_is_over", "_on_passed", "_text", "_timer", "ends_at", "interrupt", "is_passed")

    def __init__(self, runner: Any, ends_at: float, text: str, on_passed: Callable[[], object]) -> None:
        self.is_passed = self._is_over = False
        self.ends_at = ends_at
        self.interrupt: Callable[[BaseException], object] = runner.interrupt
        self._text = text
        self._on_passed = on_passed
        self._timer: Any = None
        FRESH.append(self)

    def arm(self, loop: Any, now: float) -> None:
        """Start its timer, unless the call has ended."""
        if not self._is_over:
            self._timer = loop.timer(max(0.0, self.ends_at - now))
            self._timer.start(self._pass, update=False)

    def _pass(self) -> None:
        self.is_passed = True
        self._on_passed()
        self.interrupt(CallTimedOut(self._text))

    def end(self) -> None:
        """Stop the limit, since the call has ended."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        elif FRESH and FRESH[-1] is self:
            FRESH.pop()
        else:
            self._is_over = True


def arm_limits(loop: Any) -> None:
    """Start the timers of the limits in `FRESH`. Runs in the hub, before ``loop`` goes on."""
    limits, now = FRESH[:], monotonic()
    FRESH.clear()
    loop.update_now()
    for limit in limits:
        limit.arm(loop, now)
