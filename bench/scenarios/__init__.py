"""The scenarios: which calls, on how many connections, and what is read off. Bench process only."""

from __future__ import annotations

from collections.abc import Callable

from bench.peers import Peer
from bench.scenarios import calls, clients, kinds, memory, pieces, queues, reload, tasks, waiting, workers
from bench.scenarios.variant import Effort, Variant
from bench.stage import Stage

__all__ = ["SCENARIOS", "Effort", "Variant"]

#: name → what makes its variants, in the order in which they run
SCENARIOS: dict[str, Callable[[Stage, tuple[Peer, ...], Effort], list[Variant]]] = {
    "one": calls.one,
    "depth1": calls.depth1,
    "depth16": calls.depth16,
    "payload": calls.payload,
    "pieces": pieces.pieces,
    "blocking": waiting.blocking,
    "flood": waiting.flood,
    "kinds": kinds.kinds,
    "tasks": tasks.tasks,
    "queue": queues.queues,
    "idle": memory.idle,
    "scaling": workers.scaling,
    "reload": reload.reload,
    "client": clients.clients,
}
