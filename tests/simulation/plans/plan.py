"""The plan of one afternoon, as data: the options, what happens and when, and the fates of workers.

`without` makes a smaller plan, so that a failing afternoon can be reduced to what it needs.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Union

__all__ = ["BAD", "LATE", "NEWER", "OLDER", "PLAIN", "Item", "Plan", "Section", "Step"]

#: What stands between two masters: the one speaks as another version does, or their messages come late.
OLDER, NEWER, LATE = "one is of an older version", "one is of a newer version", "their messages come late"

BAD = "bad"  # a proc_name: a configuration in which no worker boots

#: The options of the plainest cluster; a plan draws others.
PLAIN = {
    "number_workers": "1",
    "timeout": "0",
    "graceful_timeout": "1",
    "restart_delay": "0.5",
    "restart_delay_max": "2",
    "max_lifetime": "0",
    "rebalance": "true",
    "worker_connections": "10000",
    "crash_safe": "false",
}


@dataclass(frozen=True)
class Step:
    """Something that happens: at a time, or a moment after ``event`` was met for the ``nth`` time."""

    what: str
    seed: int  # decides its details
    at: float = 0.0
    event: tuple[str, str] | None = None
    nth: int = 1

    @property
    def random(self) -> random.Random:
        """The chance that decides its details."""
        return random.Random(self.seed)


class Fate(NamedTuple):
    """The bad fate of the worker that is born as the ``number``-th: to die in the middle, or to boot slowly."""

    number: int


class Option(NamedTuple):
    """An option that is not plain."""

    name: str


class Disorder(NamedTuple):
    """Processes are scheduled late, and in any order."""


class Version(NamedTuple):
    """One of two masters speaks as another version does."""

    name: str = "version"


class Section(NamedTuple):
    """The section of a plugin."""

    name: str
    options: tuple[tuple[str, str], ...]


class Pace(NamedTuple):
    """Each process boots in a time of its own."""

    name: str = "pace"


#: What a plan may do without.
Item = Union[Step, Fate, Option, Disorder, Pace, Version, Section]


@dataclass(frozen=True)
class Plan:
    """One afternoon. ``spared`` are the numbers of workers without a bad fate."""

    seed: int
    options: dict[str, str]
    length: float
    steps: tuple[Step, ...]
    idle_seconds: float = 0.0  # in peace, before the stop
    spared: frozenset[int] = field(default=frozenset())
    is_orderly: bool = False
    is_even: bool = False  # every process boots in the same time
    plugins: tuple[Section, ...] = ()
    pools: tuple[Section, ...] = ()
    leadership: tuple[Section, ...] = ()
    queues: tuple[Section, ...] = ()
    pages: tuple[Section, ...] = ()
    version: str = ""  # of one of the two masters of an upgrade, if it is another one
    order: int = 0  # the seed of the order in which processes are scheduled

    @property
    def sections(self) -> tuple[Section, ...]:
        """All sections but that of the cluster."""
        return self.plugins + self.pools + self.leadership + self.queues + self.pages

    def chance(self, of: str) -> random.Random:
        """Return the chance that decides about ``of``, whatever happens to others."""
        return random.Random(zlib.crc32(f"{self.seed}, {of}".encode()))

    def boot_seconds(self, chance: random.Random, least: float, most: float) -> float:
        """Return how long a process takes to boot: mostly not long."""
        part = chance.choice((0.15, 0.15, 0.15, 1.0)) * chance.random()  # drawn anyway: what comes later is the same
        return least + (most - least) * (0.5 if self.is_even else part)

    def items(self, births: int) -> list[Item]:
        """List everything that it may do without, if ``births`` workers were born."""
        fates = [Fate(number) for number in range(1, births + 1) if number not in self.spared]
        options = [Option(name) for name, value in self.options.items() if value != PLAIN[name]]
        others: list[Item] = [*([] if self.is_orderly else [Disorder()]), *([] if self.is_even else [Pace()])]
        others += [Version()] if self.version else []
        return [*others, *self.sections, *fates, *options, *self.steps]

    def _needs_lead(self, left: set[Item]) -> bool:
        """Return whether a plugin that is not ``left`` out runs only where the lead is."""
        return any(("leader_only", "true") in each.options for each in self.plugins if each not in left)

    def without(self, items: Iterable[Item]) -> Plan:
        """Return a plan without ``items``."""
        left = set(items)
        names = {item.name for item in left if isinstance(item, Option)}
        return replace(
            self,
            options={name: PLAIN[name] if name in names else value for name, value in self.options.items()},
            steps=tuple(step for step in self.steps if step not in left),
            spared=self.spared | {item.number for item in left if isinstance(item, Fate)},
            is_orderly=self.is_orderly or Disorder() in left,
            is_even=self.is_even or Pace() in left,
            plugins=tuple(_without_names(each, left) for each in self.plugins if each not in left),
            pools=tuple(each for each in self.pools if each not in left),
            leadership=tuple(each for each in self.leadership if each not in left or self._needs_lead(left)),
            queues=tuple(each for each in self.queues if each not in left),
            pages=tuple(each for each in self.pages if each not in left),
            version="" if Version() in left else self.version,
        )


def _without_names(section: Section, left: set[Item]) -> Section:
    """Return ``section`` without the plugins in ``left`` among those that it comes after."""
    gone = {each.name for each in left if isinstance(each, Section)}
    options = dict(section.options)
    after = [name for name in options.pop("after", "").split(", ") if name and name not in gone]
    return Section(section.name, (*options.items(), *([("after", ", ".join(after))] if after else [])))
