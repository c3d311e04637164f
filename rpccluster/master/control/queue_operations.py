"""The methods of the control socket that concern queues: the keeper answers them. Runs in the master.

They are those of docs/queue.md that need no session of a consumer.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rpccluster.master.control.group_operations import expect
from rpccluster.master.control.server import Answer, Method
from rpccluster.master.kinds.services.queueing import Queueing
from rpccluster.protocol.codec import Encoded

__all__ = ["QueueOperations"]

#: The fewest and the most params of each.
_READINGS = {"list": (0, 0), "stats": (1, 1), "peek": (1, 2), "dead": (1, 2)}
_CHANGES = {"retry": (1, 2), "purge": (1, 1), "pause": (1, 1), "resume": (1, 1)}


class QueueOperations:
    """``queue.list`` and the like."""

    def __init__(self, queueing: Queueing) -> None:
        self._queueing = queueing

    def readings(self) -> Mapping[str, Method]:
        """Return the methods that change nothing, by their names."""
        return {f"queue.{what}": partial(self._pass_on, what, numbers) for what, numbers in _READINGS.items()}

    def methods(self) -> Mapping[str, Method]:
        """Return the others."""
        others = {f"queue.{what}": partial(self._pass_on, what, numbers) for what, numbers in _CHANGES.items()}
        return {**others, "queue.put": self._put}

    def _put(self, params: list[Any], answer: Answer) -> None:
        """Put an item. It waits for no room, unless the options say for how long."""
        expect(params, 2, 3)
        options = params[2] if len(params) > 2 else None
        if options is None or isinstance(options, dict):
            params = [*params[:2], {"timeout": 0, **(options or {})}]
        self._ask("put", params, answer)

    def _pass_on(self, what: str, numbers: tuple[int, int], params: list[Any], answer: Answer) -> None:
        expect(params, *range(numbers[0], numbers[1] + 1))
        self._ask(what, params, answer)

    def _ask(self, what: str, params: list[Any], answer: Answer) -> None:
        def tell(error: str, found: Any) -> None:
            answer(error or None, None if error else Encoded(found))

        self._queueing.ask(what, params, tell)
