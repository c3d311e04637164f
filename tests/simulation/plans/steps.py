"""Draws what happens in an afternoon: single steps, and courses of several that belong together."""

from __future__ import annotations

import random

from .chances import AT_EVENTS, EVENTS, IN_AN_UPGRADE, RARE, WEIGHTS
from .plan import Step

__all__ = ["at_a_time", "at_event", "chain", "departure", "handover", "rare", "some", "upgrade"]


def some(chance: random.Random, weights: dict[str, float], number: int) -> list[str]:
    """Draw what happens; each seed has its own mind about what happens often, and what never."""
    own = [weight * chance.choice((0.0, 0.3, 1.0, 1.0, 5.0)) for weight in weights.values()]
    return chance.choices([*weights], own, k=number) if any(own) else []


def at_a_time(chance: random.Random, what: str, length: float) -> Step:
    return Step(what, chance.getrandbits(32), at=chance.random() * length)


def at_event(chance: random.Random) -> Step:
    what, event = chance.choice(AT_EVENTS), chance.choice(EVENTS)
    return Step(what, chance.getrandbits(32), event=event, nth=chance.choice((1, 1, 1, 2, 3, 5, 8)))


def upgrade(chance: random.Random, length: float) -> list[Step]:
    """Draw an upgrade, and what comes in between its messages."""
    at = 2.0 + (length - 2.0) * chance.random()
    steps = [Step("USR2", chance.getrandbits(32), at=at)]
    steps += [Step("come", chance.getrandbits(32), at=at + chance.random()) for _ in range(chance.randrange(0, 4))]
    if chance.random() < 0.5:
        what = chance.choice(("TERM", "INT", "TTIN", "WINCH", "kill a master", "kill a master", "hang a worker"))
        steps.append(Step(what, chance.getrandbits(32), event=chance.choice(IN_AN_UPGRADE)))
    for what in chance.choices([*WEIGHTS], [*WEIGHTS.values()], k=chance.randrange(0, 4)):
        steps.append(Step(what, chance.getrandbits(32), at=at + 6.0 * chance.random()))
    return steps


def handover(chance: random.Random, length: float) -> list[Step]:
    """Draw callers, a reason for their connections to move, and what comes in between."""
    at = 2.0 + (length - 2.0) * chance.random()
    steps = [Step("come", chance.getrandbits(32), at=at - chance.random()) for _ in range(chance.randrange(1, 6))]
    why = chance.choice(("recycle a worker", "recycle a worker", "TTIN", "TTOU", "reload", "USR2"))
    steps.append(Step(why, chance.getrandbits(32), at=at))
    for what in chance.choices(("kill a worker", "hang a worker", "stop a master for a while", "TERM"), k=2):
        steps.append(Step(what, chance.getrandbits(32), at=at + chance.choice((0.01, 4.0)) * chance.random()))
    return steps


def departure(chance: random.Random, length: float) -> list[Step]:
    """Draw a stop, and what comes while it waits until clients know by the registry."""
    what, event = chance.choice(("TTIN", "WINCH", "INT", "TERM")), ("phase", "running, graceful stop, after a while")
    return [at_a_time(chance, "TERM", length), Step(what, chance.getrandbits(32), event=event)]


def rare(chance: random.Random, length: float) -> list[Step]:
    """Draw an upgrade or a stop, and what comes at a rare moment of it."""
    event, may_happen = chance.choice(RARE)
    begins = {"running, graceful stop": "TERM", "running, quick stop": "INT"}.get(event[1], "USR2")
    at = 2.0 + (length - 2.0) * chance.random()
    after = [
        Step(chance.choice(may_happen), chance.getrandbits(32), event=event) for _ in range(chance.randrange(1, 3))
    ]
    return [Step(begins, chance.getrandbits(32), at=at), *after]


def chain(chance: random.Random, length: float) -> list[Step]:
    """Draw an upgrade of a new master that has only just taken over, and whose old master does not know that yet."""
    go = ("phase", "standby, the old master sent Go")
    what = (
        ("TTIN", ("phase", "starting, started by an old master")),
        ("hold the old master", go),
        ("USR2 to the new master", go),
    )
    steps = [Step(each, chance.getrandbits(32), event=event) for each, event in what]
    return [Step("USR2", chance.getrandbits(32), at=2.0 + (length - 2.0) * chance.random()), *steps]
