"""``call_timeout``: interrupts a method at its next switch once its time is over. Runs in the worker."""

from __future__ import annotations

from time import monotonic
from typing import Any, Callable

from greenlet import getcurrent

from rpccluster.worker.current import CallTimedOut
from rpccluster.worker.service.later import Parked

__all__ = ["TimeLimit", "bound"]


def bound(function: Callable[..., Any], seconds: float, on_passed: Callable[[], object]) -> Callable[..., Any]:
    """Wrap ``function`` to be interrupted at its next switch once ``seconds`` have passed; 0 means no limit.

    The wrapper then raises TimeoutError, whatever the method does with the interruption, and calls ``on_passed``. The
    limit of a call that is answered later goes on.
    """
    if not seconds:
        return function
    text = f"the call took longer than {seconds:g} seconds"

    def limited(*params: Any) -> Any:
        runner: Any = getcurrent()
        limit = runner.limit = TimeLimit(runner, seconds, text, on_passed)
        try:
            result = function(*params)
        except BaseException as error:
            runner.limit = None
            if type(error) is Parked:
                error.limit = limit
                raise
            limit.end()
            if limit.is_passed:
                raise TimeoutError(text) from error
            raise
        runner.limit = None
        limit.end()
        if limit.is_passed:
            raise TimeoutError(text)
        return result

    return limited


class TimeLimit:
    """The time limit of one call from its begin; it calls ``interrupt`` with `CallTimedOut` when it passes.

    ``ends_at`` is in monotonic seconds.
    """

    __slots__ = ("_on_passed", "_text", "_timer", "ends_at", "interrupt", "is_passed")

    def __init__(self, runner: Any, seconds: float, text: str, on_passed: Callable[[], object]) -> None:
        self.is_passed = False
        self.ends_at = monotonic() + seconds
        self.interrupt: Callable[[BaseException], object] = runner.interrupt
        self._text = text
        self._on_passed = on_passed
        self._timer = runner.parent.loop.timer(seconds)
        self._timer.start(self._pass)

    def _pass(self) -> None:
        self.is_passed = True
        self._on_passed()
        self.interrupt(CallTimedOut(self._text))

    def end(self) -> None:
        """Stop the limit, since the call has ended."""
        self._timer.stop()
        self._timer.close()
