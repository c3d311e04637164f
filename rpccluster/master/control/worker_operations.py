"""The methods of the control socket that look into the workers, which answer themselves. Runs in the master.

A worker whose loop is held up answers nothing: then its master says which method it began last.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rpccluster.log import escaped
from rpccluster.master.children.group import Group
from rpccluster.master.control.group_operations import expect
from rpccluster.master.control.server import Answer, Method
from rpccluster.master.kinds.rpc import RPCWorker
from rpccluster.master.kinds.services.asking import Asking

__all__ = ["WorkerOperations"]

SECONDS = 1.0  # that a worker has to answer
MOST_TOLD = 500  # calls, and hosts, of all workers
LEAST_TOLD = 5  # of each


class WorkerOperations:
    """``worker.calls`` and ``worker.stack``."""

    def __init__(self, workers: Group, asking: Asking) -> None:
        self._workers = workers
        self._asking = asking

    def readings(self) -> Mapping[str, Method]:
        """Return the methods by their names; they change nothing."""
        return {"worker.calls": self._calls, "worker.stack": self._stack}

    def _present(self) -> list[RPCWorker]:
        children = sorted(self._workers.children, key=lambda child: (child.slot, child.booted_at))
        return [child for child in children if isinstance(child, RPCWorker) and child.ready_at is not None]

    def _calls(self, params: list[Any], answer: Answer) -> None:
        """Tell of each worker what runs there, and whose connections it has."""
        expect(params, 0)
        workers = self._present()
        rows: list[dict[str, Any]] = [{"slot": worker.slot, "pid": worker.pid} for worker in workers]
        missing = set(range(len(rows)))

        def note(place: int, error: str, found: Any) -> None:
            rows[place].update({"error": _silent(workers[place], error)} if error else found)
            missing.discard(place)
            if not missing:
                answer(None, rows)

        for place, worker in enumerate(workers):
            most = max(LEAST_TOLD, MOST_TOLD // len(workers))
            self._asking.ask(worker, "calls", [most], partial(note, place), SECONDS)
        if not workers:
            answer(None, [])

    def _stack(self, params: list[Any], answer: Answer) -> None:
        """Tell where the worker with that pid is."""
        expect(params, 1)
        found = [worker for worker in self._present() if worker.pid == params[0]]
        if not found:
            raise ValueError(f"found the pid {params[0]!r:.40}, expected that of a worker that is ready")

        def tell(error: str, stack: Any) -> None:
            answer(f"RuntimeError: {_silent(found[0], error)}" if error else None, stack)

        self._asking.ask(found[0], "stack", [], tell, SECONDS)


def _silent(worker: RPCWorker, error: str) -> str:
    """Tell why ``worker`` has not answered, and in what it may be."""
    reason = error.partition(": ")[2] or error
    return f"{reason}; it has begun {escaped(worker.where_it_hangs())} last"
