"""The interface of the engines: the verbs of a queue, their answers, and what an engine does with a batch of them.

An engine owns what is durable: items, attempts, leases with their sessions, the dead, what a repeated call is answered
with. Connections, waiting calls and fairness among them are the keeper's. Runs in the keeper: one native thread calls
the engine, one batch after another; all that a turn of the keeper's loop brought is one batch.

A value is MessagePack bytes, as they came; an engine never unpacks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Protocol, Union

__all__ = [
    "Ack",
    "Answer",
    "Dead",
    "DeadItem",
    "EndSession",
    "Engine",
    "Get",
    "Item",
    "List",
    "Nack",
    "Outcome",
    "Pause",
    "Peek",
    "Purge",
    "Put",
    "Resume",
    "Retry",
    "Rules",
    "Stats",
    "Touch",
    "Verb",
]


class Rules(NamedTuple):
    """What a queue's section says; None means no limit. ``lease`` and ``dedup_window`` and ``expires`` are seconds."""

    lease: float = 60.0
    max_attempts: int = 5
    max_size: int | None = None
    max_bytes: int | None = None
    expires: float | None = None
    dedup_window: float = 300.0


# -- verbs. Answered with an exception, they have changed nothing, except where it says otherwise.


class Put(NamedTuple):
    """Add items with the options in common. Answered with the list of their ids, which are integers.

    A repeat (of the session's last ``seq``) and a ``dedup_id`` within the window, are answered with the first ids.
    Refused with `QueueFull`, which tells whether that is for good, `StaleToken`, `NoSuchQueue`; with ValueError if
    ``seq`` is below the session's last one.
    """

    queue: str
    values: Sequence[bytes]
    session: bytes | None = None
    seq: int = 0
    delay: float = 0.0
    priority: int = 0
    expires: float | None = None
    dedup_id: str | None = None
    group: str | None = None
    token: int | None = None


class Get(NamedTuple):
    """Lease at most ``n`` items for ``session``. Answered with a list of `Item`, empty when none is ready.

    It has fewer if their values have more than ``most_bytes``, but at least one.

    A repeat (with a ``seq`` that has items) is answered with the same items and attempts, as far as they are leased
    still. ``ack`` ends other items first, once only even in a repeat; if one of them is lost, the others are acked,
    none is taken, and the answer is `LeaseLost`.
    """

    queue: str
    session: bytes
    n: int = 1
    seq: int | None = None
    ack: Sequence[tuple[int, int]] = ()
    most_bytes: int = 15 << 20


class Ack(NamedTuple):
    """End items, as (id, attempt). Answered with True, also for what this very attempt has acked before.

    If some are lost, the others are acked, and the answer is a `LeaseLost` that names the lost.
    """

    queue: str
    pairs: Sequence[tuple[int, int]]
    token: int | None = None


class Nack(NamedTuple):
    """Give an item back, which keeps its place, or joins the end after ``delay`` seconds. Answered with True.

    With ``dead`` it is dead, whatever attempts are left.
    """

    queue: str
    id: int
    attempt: int
    delay: float = 0.0
    error: str = ""
    dead: bool = False


class Touch(NamedTuple):
    """Let the lease begin anew. Answered with True."""

    queue: str
    id: int
    attempt: int


class Peek(NamedTuple):
    """Look at the first ``n`` ready items, those behind others of their group, too. Answered with a list of `Item`,
    with the number of the last attempt.

    It has fewer if their values have more than ``most_bytes``, but at least one; an engine may have a limit of its own.
    """

    queue: str
    n: int
    most_bytes: int = 15 << 20


class Dead(NamedTuple):
    """Look at the first ``n`` dead items. Answered with a list of `DeadItem`.

    It has fewer if their values and errors have more than ``most_bytes``, but at least one; an engine may have a limit
    of its own.
    """

    queue: str
    n: int = 100
    most_bytes: int = 15 << 20


class Retry(NamedTuple):
    """Make a dead item ready, or all, at the end; attempts count from none, but their numbers go on.

    Answered with how many there were.
    """

    queue: str
    id: int | None = None


class Purge(NamedTuple):
    """Remove all items that are ready, delayed or dead. Answered with their number."""

    queue: str


class Stats(NamedTuple):
    """Count. Answered with a dict of ready, delayed, leased, dead, bytes (numbers) and paused (a bool)."""

    queue: str


class Pause(NamedTuple):
    """Give out nothing more until `Resume`, also over a restart. Answered with True."""

    queue: str


class Resume(NamedTuple):
    """Give out items again. Answered with True."""

    queue: str


class List(NamedTuple):
    """Name the queues. Answered with a sorted list of names."""


class EndSession(NamedTuple):
    """Give all items back that a session has, in whatever queue. Answered with their number.

    Many of them are given back with the batches that follow; until then they are leased.

    Unless ``counts``, the attempt that ends is not counted against ``max_attempts``, since its keeper has died.
    """

    session: bytes
    counts: bool = True


Verb = Union[
    Put, Get, Ack, Nack, Touch, Peek, Dead, Retry, Purge, Stats, Pause, Resume, List, EndSession
]  # fmt: skip


# -- answers


class Item(NamedTuple):
    """An item that is given out, in the order of the wire."""

    id: int
    attempt: int
    value: bytes


class DeadItem(NamedTuple):
    """An item whose attempts are used up, in the order of the wire."""

    id: int
    attempts: int
    value: bytes
    error: str


Answer = Any  # what the verb says, or an RPCClusterError or ValueError to raise at the caller's


class Outcome(NamedTuple):
    """What came of a batch: an answer for each verb, in their order, and what has changed for those who wait."""

    answers: list[Answer]
    ready: frozenset[str]  # queues that may have ready items that no get of the batch has taken
    room: frozenset[str]  # queues that something left for good: a put that found it full may be tried again
    wake_in: float | None  # seconds until the engine has to be run again, even without a verb; None: never


class Engine(Protocol):
    """Keeps the items of all queues. Not for two threads at a time."""

    #: Whether the items are elsewhere, so that a batch may take as long as a network is silent.
    may_be_silent: bool

    def open(self) -> list[bytes]:
        """Begin. Returns the sessions that have leases from before.

        Raises `StartError`, whose text says what to do.
        """

    def warnings(self) -> list[str]:
        """Return what the operator should know, each text once. It is asked for after `open` and after each run."""

    def configure(self, rules: Mapping[str, Rules], default: Rules | None) -> None:
        """Take over what the sections say, from the next batch on; before the first one, too.

        A queue without rules has ``default``, which is None unless queues are made by their first put.
        """

    def start(self, verbs: Sequence[Verb]) -> Outcome | Callable[[], Outcome]:
        """Begin a batch in the loop's thread, without waiting. Returns its outcome, or what waits for it.

        That is called in a native thread, and raises what `run` raises. The next batch begins after it has returned.
        """

    def run(self, verbs: Sequence[Verb]) -> Outcome:
        """Run a batch as one transaction, in order. Before it ends leases and begins delayed items that are due.

        Returns when it is as durable as is asked. Raises `EngineFailed`, after which only `close` may be called.
        """

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when the engine has to be run without a verb; None if there is none.

        It may be another one after each run.
        """

    def keep_up(self, *, is_idle: bool = True) -> bool:
        """Do a small piece of upkeep, of about 5 ms, between two batches. Returns whether more is due.

        Unless ``is_idle`` the next batch waits for it: then it is what would never be done else, alone.
        """

    def close(self) -> None:
        """End, and let another one open what was kept."""
