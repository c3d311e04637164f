"""Draws the plan of a seed: what its cluster is like, and what happens in it."""

from __future__ import annotations

import random

from .chances import OF_POOLS, OPTIONS, WEIGHTS
from .plan import LATE, NEWER, OLDER, Plan
from .sections import (
    draw_plugins,
    draw_pools,
    with_failing_plugin,
    with_leadership,
    with_ledgers,
    with_pages,
    with_queues,
)
from .steps import at_a_time, at_event, chain, handover, rare, some, upgrade

__all__ = ["draw"]


def draw(seed: int) -> Plan:
    """Draw the plan of ``seed``."""
    chance = random.Random(seed)
    options = {name: chance.choice(values) for name, values in OPTIONS.items()}
    length = 5.0 + 25.0 * chance.random()
    steps = [at_a_time(chance, what, length) for what in some(chance, WEIGHTS, chance.choice((1, 2, 3, 6, 12)))]
    if chance.random() < 0.35:
        steps += upgrade(chance, length)
    if chance.random() < 0.25:
        steps += handover(chance, length)
    if chance.random() < 0.15:
        steps += chance.choice((rare, rare, chain))(chance, length)
    steps += [at_event(chance) for _ in range(chance.choice((0, 0, 1, 2)))]
    idle = chance.random() * _idle_seconds(options) if chance.random() < 0.15 else 0.0
    version = chance.choice(("", "", "", "", OLDER, NEWER, LATE, LATE))
    if version == OLDER and any(step.what == "USR2 to the new master" for step in steps):
        version = LATE  # the second of three masters could not tell the first that it has left to the third
    plugins = tuple(draw_plugins(chance))
    pools = tuple(draw_pools(chance))
    if pools:
        version = "" if version == OLDER else version  # that one has no pools
        steps += [at_a_time(chance, what, length) for what in chance.choices(OF_POOLS, k=chance.randrange(0, 5))]
    plan = Plan(seed, options, length, tuple(steps), idle, plugins=plugins, pools=pools, version=version, order=seed)
    return with_ledgers(with_failing_plugin(with_pages(with_queues(with_leadership(plan)))))


def _idle_seconds(options: dict[str, str]) -> float:
    """Return how long it may be idle at most: not long if the master then looks at its workers all the time."""
    return 60.0 if options["timeout"] == "5" or options["max_lifetime"] != "0" else 5400.0
