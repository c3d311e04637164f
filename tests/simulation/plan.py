"""The plan of one afternoon, drawn from a seed: the options, what happens and when, and the fates of workers.

A plan is data. `without` makes a smaller one, so that a failing afternoon can be reduced to what it needs.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Union

__all__ = ["BAD", "LATE", "NEWER", "OLDER", "PLAIN", "Item", "Plan", "Step", "draw"]

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
}

_OPTIONS: dict[str, tuple[str, ...]] = {
    "number_workers": ("1", "1", "2", "2", "3"),
    "timeout": ("0", "5", "30"),
    "graceful_timeout": ("1", "3", "6"),
    "restart_delay": ("0.5", "1"),
    "restart_delay_max": ("2", "8"),
    "max_lifetime": ("0", "0", "0", "15"),
    "rebalance": ("true", "true", "false"),
    "worker_connections": ("10000", "10000", "3"),
}

_PLUGIN_OPTIONS: dict[str, tuple[str, ...]] = {
    "processes": ("1", "1", "1", "2"),
    "restart": ("always", "always", "on-failure", "never"),
    "restart_delay": ("0.5", "1"),
    "restart_delay_max": ("2", "8"),
    "essential": ("false", "false", "false", "false", "true"),
    "ready": ("started", "started", "notify"),
    "ready_timeout": ("2", "10"),
    "stop_timeout": ("1", "3"),
    "overlap": ("none", "none", "successor"),
    "timeout": ("0", "0", "5"),
    "max_lifetime": ("0", "0", "0", "20"),
}

_POOL_OPTIONS: dict[str, tuple[str, ...]] = {
    "processes": ("1", "1", "2"),
    "spare": ("0", "1", "1", "2"),
    "restart_delay": ("0.5", "1"),
    "restart_delay_max": ("2", "8"),
    "stop_timeout": ("1", "3"),
    "max_lifetime": ("0", "0", "15"),
}

#: What may happen, and how often beside the others.
WEIGHTS = {
    "kill a worker": 4.0,
    "hang a worker": 3.0,
    "TERM to a worker": 2.0,
    "recycle a worker": 3.0,
    "stop a master for a while": 2.0,
    "kill a master": 2.0,
    "fail forks": 1.0,
    "fill the table of descriptors": 1.0,
    "fill the disk": 0.7,
    "remove a path": 0.5,
    "come": 6.0,
    "control": 3.0,
    "control a plugin": 3.0,
    "reload": 4.0,
    "TTIN": 2.0,
    "TTOU": 2.0,
    "USR2": 2.0,
    "WINCH": 1.0,
    "USR1": 1.0,
    "CONT": 1.0,
    "TERM": 0.2,
    "INT": 0.1,
    "QUIT": 0.05,
}

#: Events with which something may happen, a moment later.
EVENTS = (
    *(
        ("message", name)
        for name in ("Give", "Adopted", "Release", "Released", "Reply", "DonorGone", "Retire", "Ready")
    ),
    ("stage", "none, booting"),
    ("stage", "booting, committing"),
    ("stage", "booting, committing"),
    ("stage", "committing, done"),
    ("phase", "joining, the first workers have booted"),
    ("phase", "standby, the old master sent Go"),
    ("phase", "standby, the old master sent Go"),
    ("fault", "worker killed"),
    ("fault", "died in the middle"),
)

_OF_PAGES = ("kill the page", "kill the page", "kill a worker", "USR2", "reload", "TERM")
_OF_QUEUES = ("kill the keeper", "kill the keeper", "kill the keeper", "USR2", "reload")
_OF_POOLS = ("kill a task process", "kill a task process", "kill the dispatcher", "control a pool", "USR2", "reload")

_OVERLAPS = ("none", "successor")
_OF_LEADERSHIP = (
    *("give the lead away", "give the lead away", "take the store down", "hang the coordinator", "hand the lead over"),
    *("kill the coordinator", "USR2", "reload", "TERM"),
)

_AT_EVENTS = (
    *("kill a worker", "hang a worker", "recycle a worker", "stop a master for a while", "kill a master", "control"),
    *("kill a master", "TERM", "INT", "TTIN", "WINCH", "reload", "USR1", "USR2", "fail forks"),
    *("fill the table of descriptors", "fill the disk"),
)


#: Moments that hardly any afternoon meets by chance: with the event, one of these happens.
RARE = (
    (("stage", "none, booting"), ("TTIN", "TTOU", "WINCH")),
    (("phase", "standby, the old master sent Go"), ("TERM", "INT")),
    (("phase", "starting, started by an old master"), ("TERM to the new master", "INT to the new master")),
    (("phase", "joining, the first workers have booted"), ("TERM to the new master", "INT to the new master")),
    (("phase", "joining, the first workers have booted"), ("TTIN to the new master",)),
    (("phase", "standby, the old master sent Go"), ("TERM to the new master", "INT to the new master")),
    (("phase", "running, graceful stop"), ("TERM", "WINCH", "TTIN", "INT")),
    (("phase", "running, quick stop"), ("TERM", "WINCH", "TTIN", "INT", "QUIT")),
)


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


def draw(seed: int) -> Plan:
    """Draw the plan of ``seed``."""
    chance = random.Random(seed)
    options = {name: chance.choice(values) for name, values in _OPTIONS.items()}
    length = 5.0 + 25.0 * chance.random()
    steps = [_at_a_time(chance, what, length) for what in _some(chance, WEIGHTS, chance.choice((1, 2, 3, 6, 12)))]
    if chance.random() < 0.35:
        steps += _upgrade(chance, length)
    if chance.random() < 0.25:
        steps += _handover(chance, length)
    if chance.random() < 0.15:
        steps += chance.choice((_rare, _rare, _chain))(chance, length)
    steps += [_at_event(chance) for _ in range(chance.choice((0, 0, 1, 2)))]
    idle = chance.random() * _idle_seconds(options) if chance.random() < 0.15 else 0.0
    version = chance.choice(("", "", "", "", OLDER, NEWER, LATE, LATE))
    if version == OLDER and any(step.what == "USR2 to the new master" for step in steps):
        version = LATE  # the second of three masters could not tell the first that it has left to the third
    plugins = tuple(_plugins(chance))
    pools = tuple(_pools(chance))
    if pools:
        version = "" if version == OLDER else version  # that one has no pools
        steps += [_at_a_time(chance, what, length) for what in chance.choices(_OF_POOLS, k=chance.randrange(0, 5))]
    plan = Plan(seed, options, length, tuple(steps), idle, plugins=plugins, pools=pools, version=version, order=seed)
    return _with_failing_plugin(_with_pages(_with_queues(_with_leadership(plan))))


def _with_leadership(plan: Plan) -> Plan:
    """Let some plans have a coordinator and plugins that need the lead; by a chance of its own, so others stay."""
    chance = plan.chance("leadership")
    if chance.random() > 0.06 or plan.version in (OLDER, NEWER):
        return plan
    options = (("drain_delay", chance.choice(("0", "0.5", "2"))), ("session_timeout", "4"))
    section = Section("leadership", (("engine", "file:%(here)s/lead"), *options))
    led = [
        Section(name, (("command", "/bin/sh"), ("leader_only", "true"), ("overlap", chance.choice(_OVERLAPS))))
        for name in ("x", "y")[: chance.choice((1, 1, 2))]
    ]
    steps = [_at_a_time(chance, what, plan.length) for what in chance.choices(_OF_LEADERSHIP, k=chance.randrange(6))]
    steps += _departure(chance, plan.length) if chance.random() < 0.6 else []
    return replace(plan, leadership=(section,), plugins=(*plan.plugins, *led), steps=(*plan.steps, *steps))


def _with_queues(plan: Plan) -> Plan:
    """Let some plans have a keeper; by a chance of its own, so others stay."""
    chance = plan.chance("queues")
    if chance.random() > 0.06 or plan.version in (OLDER, NEWER):
        return plan
    names = ("j", "k")[: chance.choice((1, 1, 2))]
    queues = tuple(Section(f"queue:{name}", (("lease", chance.choice(("1", "60"))),)) for name in names)
    steps = [_at_a_time(chance, what, plan.length) for what in chance.choices(_OF_QUEUES, k=chance.randrange(6))]
    return replace(plan, queues=queues, steps=(*plan.steps, *steps))


def _with_pages(plan: Plan) -> Plan:
    """Let some plans have metrics, a page, or both; by a chance of its own, so others stay."""
    chance = plan.chance("pages")
    if chance.random() > 0.06 or plan.version in (OLDER, NEWER):
        return plan
    headers = chance.choice((("metrics",), ("web",), ("metrics", "web")))
    paths = chance.choice((("page", "page"), ("page", "numbers")))  # one address for both, or two
    pages = tuple(Section(header, (("bind", f"unix://%(here)s/{path}"),)) for header, path in zip(headers, paths))
    steps = [_at_a_time(chance, what, plan.length) for what in chance.choices(_OF_PAGES, k=chance.randrange(6))]
    return replace(plan, pages=pages, steps=(*plan.steps, *steps))


def _departure(chance: random.Random, length: float) -> list[Step]:
    """Draw a stop, and what comes while it waits until clients know by the registry."""
    what, event = chance.choice(("TTIN", "WINCH", "INT", "TERM")), ("phase", "running, graceful stop, after a while")
    return [_at_a_time(chance, "TERM", length), Step(what, chance.getrandbits(32), event=event)]


def _with_failing_plugin(plan: Plan) -> Plan:
    """Let a few plans have an essential plugin that fails too often, mostly in the middle of an upgrade."""
    chance = plan.chance("failing plugin")
    if chance.random() > 0.01 or plan.sections or plan.version in (OLDER, NEWER):
        return plan
    options = (("command", "/bin/sh"), ("essential", "true"), ("restart_delay", "0.1"), ("restart_delay_max", "0.2"))
    times = [1.0 + 1.5 * number + 0.3 * chance.random() for number in range(chance.choice((3, 4, 4, 4)))]
    steps = [Step("fail a plugin", chance.getrandbits(32), at=at) for at in times]
    steps.append(Step("USR2", chance.getrandbits(32), at=times[-1] + 1.0 + chance.random()))
    steps.append(Step("fail a plugin", chance.getrandbits(32), event=chance.choice(_IN_AN_UPGRADE)))
    version = chance.choice((plan.version, LATE, LATE))  # so that there is a moment between two messages
    return replace(plan, plugins=(Section("e", options),), steps=(*plan.steps, *steps), version=version)


def _without_names(section: Section, left: set[Item]) -> Section:
    """Return ``section`` without the plugins in ``left`` among those that it comes after."""
    gone = {each.name for each in left if isinstance(each, Section)}
    options = dict(section.options)
    after = [name for name in options.pop("after", "").split(", ") if name and name not in gone]
    return Section(section.name, (*options.items(), *([("after", ", ".join(after))] if after else [])))


def _plugins(chance: random.Random) -> Iterator[Section]:
    """Draw the sections of plugins; each may come after earlier ones."""
    names: list[str] = []
    for name in ("a", "b", "c")[: chance.choice((*(0,) * 17, 1, 2, 3))]:
        options = {key: chance.choice(values) for key, values in _PLUGIN_OPTIONS.items()}
        kind = chance.choice((("run", "module:function"), ("command", "/bin/sh")))
        if kind[0] == "command":
            options.pop("timeout")  # the master would look where a real process with that pid is stuck
        after = [each for each in (*names, "workers") if chance.random() < 0.3]
        order = [("after", ", ".join(after))] if after else []
        yield Section(name, (kind, *options.items(), *order))
        names.append(name)


def _pools(chance: random.Random) -> Iterator[Section]:
    """Draw the sections of pools."""
    for name in ("p", "q")[: chance.choice((*(0,) * 22, 1, 2))]:
        options = {key: chance.choice(values) for key, values in _POOL_OPTIONS.items()}
        yield Section(f"pool:{name}", (("targets", "module"), *options.items()))


def _idle_seconds(options: dict[str, str]) -> float:
    """Return how long it may be idle at most: not long if the master then looks at its workers all the time."""
    return 60.0 if options["timeout"] == "5" or options["max_lifetime"] != "0" else 5400.0


def _some(chance: random.Random, weights: dict[str, float], number: int) -> list[str]:
    """Draw what happens; each seed has its own mind about what happens often, and what never."""
    own = [weight * chance.choice((0.0, 0.3, 1.0, 1.0, 5.0)) for weight in weights.values()]
    return chance.choices([*weights], own, k=number) if any(own) else []


def _at_a_time(chance: random.Random, what: str, length: float) -> Step:
    return Step(what, chance.getrandbits(32), at=chance.random() * length)


def _at_event(chance: random.Random) -> Step:
    what, event = chance.choice(_AT_EVENTS), chance.choice(EVENTS)
    return Step(what, chance.getrandbits(32), event=event, nth=chance.choice((1, 1, 1, 2, 3, 5, 8)))


_IN_AN_UPGRADE = (
    ("stage", "none, booting"),
    ("stage", "booting, committing"),
    ("phase", "standby, the old master sent Go"),
    ("phase", "standby, the old master sent Go"),
    ("stage", "committing, done"),
)


def _upgrade(chance: random.Random, length: float) -> list[Step]:
    """Draw an upgrade, and what comes in between its messages."""
    at = 2.0 + (length - 2.0) * chance.random()
    steps = [Step("USR2", chance.getrandbits(32), at=at)]
    steps += [Step("come", chance.getrandbits(32), at=at + chance.random()) for _ in range(chance.randrange(0, 4))]
    if chance.random() < 0.5:
        what = chance.choice(("TERM", "INT", "TTIN", "WINCH", "kill a master", "kill a master", "hang a worker"))
        steps.append(Step(what, chance.getrandbits(32), event=chance.choice(_IN_AN_UPGRADE)))
    for what in chance.choices([*WEIGHTS], [*WEIGHTS.values()], k=chance.randrange(0, 4)):
        steps.append(Step(what, chance.getrandbits(32), at=at + 6.0 * chance.random()))
    return steps


def _handover(chance: random.Random, length: float) -> list[Step]:
    """Draw callers, a reason for their connections to move, and what comes in between."""
    at = 2.0 + (length - 2.0) * chance.random()
    steps = [Step("come", chance.getrandbits(32), at=at - chance.random()) for _ in range(chance.randrange(1, 6))]
    why = chance.choice(("recycle a worker", "recycle a worker", "TTIN", "TTOU", "reload", "USR2"))
    steps.append(Step(why, chance.getrandbits(32), at=at))
    for what in chance.choices(("kill a worker", "hang a worker", "stop a master for a while", "TERM"), k=2):
        steps.append(Step(what, chance.getrandbits(32), at=at + chance.choice((0.01, 4.0)) * chance.random()))
    return steps


def _rare(chance: random.Random, length: float) -> list[Step]:
    """Draw an upgrade or a stop, and what comes at a rare moment of it."""
    event, may_happen = chance.choice(RARE)
    begins = {"running, graceful stop": "TERM", "running, quick stop": "INT"}.get(event[1], "USR2")
    at = 2.0 + (length - 2.0) * chance.random()
    after = [
        Step(chance.choice(may_happen), chance.getrandbits(32), event=event) for _ in range(chance.randrange(1, 3))
    ]
    return [Step(begins, chance.getrandbits(32), at=at), *after]


def _chain(chance: random.Random, length: float) -> list[Step]:
    """Draw an upgrade of a new master that has only just taken over, and whose old master does not know that yet."""
    go = ("phase", "standby, the old master sent Go")
    what = (
        ("TTIN", ("phase", "starting, started by an old master")),
        ("hold the old master", go),
        ("USR2 to the new master", go),
    )
    steps = [Step(each, chance.getrandbits(32), event=event) for each, event in what]
    return [Step("USR2", chance.getrandbits(32), at=2.0 + (length - 2.0) * chance.random()), *steps]
