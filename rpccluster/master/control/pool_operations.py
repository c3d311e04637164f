"""The methods of the control socket that concern pools: the dispatcher answers them. Runs in the master."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rpccluster.master.control.group_operations import expect
from rpccluster.master.control.server import Answer, Method
from rpccluster.master.kinds.services.pooling import Pooling

__all__ = ["PoolOperations"]


class PoolOperations:
    """``pool.list``, ``pool.tasks`` and ``pool.cancel``."""

    def __init__(self, pooling: Pooling) -> None:
        self._pooling = pooling

    def methods(self) -> Mapping[str, Method]:
        """Return the methods by their names."""
        return {"pool.list": self._list, "pool.tasks": self._tasks, "pool.cancel": self._cancel}

    def _list(self, params: list[Any], answer: Answer) -> None:
        expect(params, 0)
        self._ask("list", [], answer)

    def _tasks(self, params: list[Any], answer: Answer) -> None:
        expect(params, 1)
        self._ask("tasks", [str(params[0]).partition("pool:")[2] or str(params[0])], answer)

    def _cancel(self, params: list[Any], answer: Answer) -> None:
        expect(params, 1)
        if type(params[0]) is not int:
            raise ValueError(f"found {params[0]!r}, expected the id of a task, as pool tasks shows it")
        self._ask("cancel", params, answer)

    def _ask(self, what: str, params: list[Any], answer: Answer) -> None:
        self._pooling.ask(what, params, lambda error, told: answer(error or None, told))
