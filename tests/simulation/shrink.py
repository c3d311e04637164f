"""Reduces a failing afternoon: what it does not need is left out, group by group, then one by one.

This is delta debugging over the plan of a seed. A smaller plan counts if the same rule breaks, whoever breaks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from .afternoon import Outcome, live
from .plans.plan import Plan

__all__ = ["rule_of", "shrunk"]

MOST_RUNS = 400
OTHER_ORDERS = 12  # in which the same few things may happen with a shorter story
_NUMBERS = re.compile(r"0x[0-9a-f]+|[-+]?\d+(\.\d+)?")


def rule_of(fault: str) -> str:
    """Return the rule that a fault breaks: the beginning of its text without numbers."""
    return " ".join(_NUMBERS.sub("#", fault).split()[:7])


def shrunk(failed: Outcome) -> Outcome:
    """Return the smallest outcome like ``failed`` that was found."""
    return _Search(failed).smallest()


class _Search:
    def __init__(self, failed: Outcome) -> None:
        self._best = failed
        self._rule = rule_of(failed.fault)
        self._runs = 0

    def smallest(self) -> Outcome:
        self._leave_out()
        for order in range(OTHER_ORDERS):
            self._try(replace(self._best.plan, order=order), is_smaller=False)
        self._leave_out()
        for plan in self._quicker():
            self._try(plan, is_smaller=False)
        return self._best

    def _try(self, plan: Plan, *, is_smaller: bool) -> bool:
        """Live through ``plan``; it is the best now if it breaks the rule, and is smaller or has a shorter story."""
        if self._runs >= MOST_RUNS:
            return False
        self._runs += 1
        outcome = live(plan)
        if rule_of(outcome.fault) != self._rule:
            return False
        if is_smaller or len(outcome.story) < len(self._best.story):
            self._best = outcome
            return True
        return False

    def _leave_out(self) -> None:
        items = self._best.plan.items(self._best.births)
        size = max(1, len(items) // 2)
        while items:
            left = list(items)
            for start in range(0, len(items), size):
                group = items[start : start + size]
                if self._try(self._best.plan.without(group), is_smaller=True):
                    left = [item for item in left if item not in group]
            if size == 1 and len(left) == len(items):
                break
            items, size = left, max(1, min(size, len(left)) // 2)

    def _quicker(self) -> Iterator[Plan]:
        plan = self._best.plan
        yield replace(plan, idle_seconds=0.0)
        for part in (0.2, 0.5, 0.8):
            yield replace(self._best.plan, length=plan.length * part)
