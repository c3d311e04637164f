"""``call_timeout``: a method is interrupted at its next switch once its time is over. Runs in the worker."""

from __future__ import annotations

from typing import Any, Callable

from greenlet import getcurrent

from rpccluster.worker.current import CallTimedOut

__all__ = ["bound"]


def bound(function: Callable[..., Any], seconds: float, on_passed: Callable[[], object]) -> Callable[..., Any]:
    """``function`` interrupted at its next switch once ``seconds`` have passed; 0 is no limit.

    Then it raises TimeoutError, whatever the method makes of the interruption. ``on_passed`` is called each time.
    """
    if not seconds:
        return function

    def limited(*params: Any) -> Any:
        limit = _Limit(seconds, on_passed)
        try:
            result = function(*params)
        except BaseException as error:
            if limit.is_passed:
                raise TimeoutError(limit.text) from error
            raise
        finally:
            limit.end()
        if limit.is_passed:
            raise TimeoutError(limit.text)
        return result

    return limited


class _Limit:
    """The time limit of the present runner's call."""

    __slots__ = ("_on_passed", "_runner", "_timer", "is_passed", "text")

    def __init__(self, seconds: float, on_passed: Callable[[], object]) -> None:
        self.text = f"the call took longer than {seconds:g} seconds"
        self.is_passed = False
        self._on_passed = on_passed
        self._runner: Any = getcurrent()
        self._timer = self._runner.parent.loop.timer(seconds)
        self._timer.start(self._pass)

    def _pass(self) -> None:
        self.is_passed = True
        self._on_passed()
        self._runner.interrupt(CallTimedOut(self.text))

    def end(self) -> None:
        self._timer.stop()
        self._timer.close()
