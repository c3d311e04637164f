"""Draws the sections that a plan has beside that of the cluster, and what happens to their processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from .chances import (
    IN_AN_UPGRADE,
    OF_LEADERSHIP,
    OF_LEDGERS,
    OF_PAGES,
    OF_QUEUES,
    OVERLAPS,
    PLUGIN_OPTIONS,
    POOL_OPTIONS,
)
from .plan import LATE, NEWER, OLDER, Plan, Section, Step
from .steps import at_a_time, departure

__all__ = [
    "draw_plugins",
    "draw_pools",
    "with_failing_plugin",
    "with_leadership",
    "with_ledgers",
    "with_pages",
    "with_queues",
]


def draw_plugins(chance: random.Random) -> Iterator[Section]:
    """Draw the sections of plugins; each may come after earlier ones."""
    names: list[str] = []
    for name in ("a", "b", "c")[: chance.choice((*(0,) * 17, 1, 2, 3))]:
        options = {key: chance.choice(values) for key, values in PLUGIN_OPTIONS.items()}
        kind = chance.choice((("run", "module:function"), ("command", "/bin/sh")))
        if kind[0] == "command":
            options.pop("timeout")  # the master would look where a real process with that pid is stuck
        after = [each for each in (*names, "workers") if chance.random() < 0.3]
        order = [("after", ", ".join(after))] if after else []
        yield Section(name, (kind, *options.items(), *order))
        names.append(name)


def draw_pools(chance: random.Random) -> Iterator[Section]:
    """Draw the sections of pools."""
    for name in ("p", "q")[: chance.choice((*(0,) * 22, 1, 2))]:
        options = {key: chance.choice(values) for key, values in POOL_OPTIONS.items()}
        yield Section(f"pool:{name}", (("targets", "module"), *options.items()))


def with_leadership(plan: Plan) -> Plan:
    """Let some plans have a coordinator and plugins that need the lead; by a chance of its own, so others stay."""
    chance = plan.chance("leadership")
    if chance.random() > 0.06 or plan.version in (OLDER, NEWER):
        return plan
    options = (("drain_delay", chance.choice(("0", "0.5", "2"))), ("session_timeout", "4"))
    section = Section("leadership", (("engine", "file:%(here)s/lead"), *options))
    led = [
        Section(name, (("command", "/bin/sh"), ("leader_only", "true"), ("overlap", chance.choice(OVERLAPS))))
        for name in ("x", "y")[: chance.choice((1, 1, 2))]
    ]
    steps = [at_a_time(chance, what, plan.length) for what in chance.choices(OF_LEADERSHIP, k=chance.randrange(6))]
    steps += departure(chance, plan.length) if chance.random() < 0.6 else []
    return replace(plan, leadership=(section,), plugins=(*plan.plugins, *led), steps=(*plan.steps, *steps))


def with_queues(plan: Plan) -> Plan:
    """Let some plans have a keeper; by a chance of its own, so others stay."""
    chance = plan.chance("queues")
    if chance.random() > 0.06 or plan.version in (OLDER, NEWER):
        return plan
    names = ("j", "k")[: chance.choice((1, 1, 2))]
    queues = tuple(Section(f"queue:{name}", (("lease", chance.choice(("1", "60"))),)) for name in names)
    steps = [at_a_time(chance, what, plan.length) for what in chance.choices(OF_QUEUES, k=chance.randrange(6))]
    return replace(plan, queues=queues, steps=(*plan.steps, *steps))


def with_pages(plan: Plan) -> Plan:
    """Let some plans have metrics, a page, or both; by a chance of its own, so others stay."""
    chance = plan.chance("pages")
    if chance.random() > 0.06 or plan.version in (OLDER, NEWER):
        return plan
    headers = chance.choice((("metrics",), ("web",), ("metrics", "web")))
    paths = chance.choice((("page", "page"), ("page", "numbers")))  # one address for both, or two
    pages = tuple(Section(header, (("bind", f"unix://%(here)s/{path}"),)) for header, path in zip(headers, paths))
    steps = [at_a_time(chance, what, plan.length) for what in chance.choices(OF_PAGES, k=chance.randrange(6))]
    return replace(plan, pages=pages, steps=(*plan.steps, *steps))


def with_ledgers(plan: Plan) -> Plan:
    """Let connections outlive their workers in some plans; by a chance of its own, so others stay."""
    chance = plan.chance("ledgers")
    is_on = chance.random() < 0.3 and plan.version != OLDER
    plan = replace(plan, options={**plan.options, "crash_safe": "true" if is_on else "false"})
    if not is_on or chance.random() < 0.5:
        return plan
    steps = [at_a_time(chance, what, plan.length) for what in chance.choices(OF_LEDGERS, k=chance.randrange(1, 8))]
    return replace(plan, steps=(*plan.steps, *steps))


def with_failing_plugin(plan: Plan) -> Plan:
    """Let a few plans have an essential plugin that fails too often, mostly in the middle of an upgrade."""
    chance = plan.chance("failing plugin")
    if chance.random() > 0.01 or plan.sections or plan.version in (OLDER, NEWER):
        return plan
    options = (("command", "/bin/sh"), ("essential", "true"), ("restart_delay", "0.1"), ("restart_delay_max", "0.2"))
    times = [1.0 + 1.5 * number + 0.3 * chance.random() for number in range(chance.choice((3, 4, 4, 4)))]
    steps = [Step("fail a plugin", chance.getrandbits(32), at=at) for at in times]
    steps.append(Step("USR2", chance.getrandbits(32), at=times[-1] + 1.0 + chance.random()))
    steps.append(Step("fail a plugin", chance.getrandbits(32), event=chance.choice(IN_AN_UPGRADE)))
    version = chance.choice((plan.version, LATE, LATE))  # so that there is a moment between two messages
    return replace(plan, plugins=(Section("e", options),), steps=(*plan.steps, *steps), version=version)
