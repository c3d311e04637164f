"""The methods that each identity may call, as tables in place of the registry's. Runs in the worker.

Where there are rules, each connection finds its methods in the tables of its identity. A method that no rule allows is
there a function that refuses; one with rates takes from their buckets first. So a call without a rate costs nothing
more, and ``rpc.call`` finds what it may call in the same tables. Names that begin with ``rpc.`` are always allowed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rpccluster.config.access import EVERYBODY, Rule, rules_of
from rpccluster.identity import Identity
from rpccluster.ipc.scoreboard import Cell
from rpccluster.log import escaped, logger
from rpccluster.protocol.bounded import RESERVED
from rpccluster.worker.access.rates import LEVEL_SECONDS, Rates
from rpccluster.worker.limits import Limits
from rpccluster.worker.service.call_errors import Denied
from rpccluster.worker.service.later import HeldBack
from rpccluster.worker.service.registry import Registry

__all__ = ["Access", "Allowed"]

QUEUES = "queue."  # methods of the keeper's
_DISCOVER = "rpc.discover"
_KEEPER = "keeper"

Table = dict[str, Callable[..., Any]]


class Allowed:
    """What an identity may call: ``tables`` has two, the second for the time when no greenlet is free.

    ``plain`` are the same two without the rates, which are in ``buckets`` by method. ``view`` is the engine's.
    """

    __slots__ = ("buckets", "names", "plain", "tables", "view")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.tables: tuple[Table, Table] = ({}, {})
        self.plain: tuple[Table, Table] = ({}, {})
        self.buckets: dict[str, tuple[Any, ...]] = {}
        self.view: Any = None


class Access:
    """The rules in force, and the tables of the identities that have connections."""

    def __init__(self, registry: Registry, limits: Limits, rates: Rates, kind: str = "", own: str = "") -> None:
        """``kind`` is that of a service of the package's own: a keeper is guarded if some rule names its methods.

        ``own`` is an identity that may call everything.
        """
        self._registry = registry
        self._limits = limits
        self._rates = rates
        self._kind = kind
        self._own = own
        self._rules: dict[str, tuple[Rule, ...]] | None = None
        self._buckets: dict[tuple[str, int], Any] = {}  # by identity, and the number of its rule
        self._everything = Allowed(())
        self._everything.tables = self._everything.plain = registry.tables
        self._cache: dict[tuple[str, ...], Allowed] = {}
        self._followers: list[Callable[[Allowed], object]] = []
        registry.follow(self._wrap_again)

    def set_rules(self, text: str) -> None:
        """Let the rules of ``text`` be in force: `rpccluster.config.access.texts_of`; empty for none."""
        found = {name: rules_of(rules) for name, rules in json.loads(text).items()} if text else None
        self._rules = found = found if self._concerns(found or {}) else None
        rated = [(name, place) for name, own in (found or {}).items() for place, rule in enumerate(own) if rule.rate]
        self._rates.set_rates([(found or {})[name][place].rate or 0.0 for name, place in rated])
        self._buckets = dict(zip(rated, self._rates.buckets))
        self._cache = {}

    def _concerns(self, rules: Mapping[str, tuple[Rule, ...]]) -> bool:
        """Return whether ``rules`` hold for the methods that this process serves."""
        if not self._kind:
            return True
        names_queues = any(rule.pattern.startswith(QUEUES) for own in rules.values() for rule in own)
        return self._kind == _KEEPER and names_queues

    def follow(self, tell: Callable[[Allowed], object]) -> None:
        """Call ``tell`` with what an identity may call when that is new, or its functions are."""
        self._followers.append(tell)
        tell(self._everything)

    def allowed(self, identity: Identity) -> Allowed:
        """Return what a peer of this ``identity`` may call."""
        if self._rules is None or (self._own and self._own in identity.names):
            return self._everything
        found = self._cache.get(identity.names)
        if found is None:
            found = self._cache[identity.names] = Allowed(identity.names)
            self._fill(found)
        return found

    def level(self) -> None:
        """Take this worker's share of the rates anew. Called twice a second."""
        self._rates.level()

    def unmatched(self) -> list[str]:
        """Return the rules that allow no method of this worker; those of queues are not its."""
        methods = [name for name in self._registry.names if not name.startswith(RESERVED)]
        return [
            f"{name} = {rule}"
            for name, own in (self._rules or {}).items()
            for rule in own
            if not rule.pattern.startswith(QUEUES) and not any(map(rule.allows, methods))
        ]

    def make_buckets_with(self, make: Callable[[], Any]) -> None:
        """Let the rules that come have buckets of this kind: the engine's own."""
        self._rates.make = make

    def refuse_rate(self, method: str) -> Denied:
        """Count and log a call past its rate. Returns what its caller is answered."""
        self._limits.note(Cell.RATE_LIMITED, f"Refusing a call of {escaped(method)}", "past the rate of its rule")
        return Denied(f"RateLimited: retry after {LEVEL_SECONDS:g}")

    def warn_of_unmatched(self) -> None:
        """Log the rules that allow nothing."""
        for rule in self.unmatched():
            logger.warning("The rule %s of [access] allows no method of the service", escaped(rule))

    def _wrap_again(self) -> None:
        for allowed in (self._everything, *self._cache.values()):
            self._fill(allowed)

    def _fill(self, allowed: Allowed) -> None:
        if allowed is not self._everything:
            names = [name for name in self._registry.names if self._is_allowed(allowed, name)]
            for table, plain, wanted in zip(allowed.tables, allowed.plain, self._registry.tables):
                plain.clear()
                plain.update({name: self._refusing(name) for name in wanted})
                plain.update({name: wanted[name] for name in names if name in wanted})
                if _DISCOVER in wanted:
                    plain[_DISCOVER] = lambda: self._registry.describe(names)
                table.clear()
                table.update(plain)
                for name, buckets in allowed.buckets.items():
                    if name in wanted:
                        table[name] = self._rated(name, wanted[name], buckets)
        for tell in self._followers:
            tell(allowed)

    def _is_allowed(self, allowed: Allowed, method: str) -> bool:
        """Return whether some rule of an identity allows ``method``, and note the buckets of all that do."""
        if method.startswith(RESERVED):
            return True
        assert self._rules is not None
        matching = [
            (name, place, rule)
            for name in (*allowed.names, EVERYBODY)
            for place, rule in enumerate(self._rules.get(name, ()))
            if rule.allows(method)
        ]
        buckets = tuple(self._buckets[name, place] for name, place, rule in matching if rule.rate)
        if buckets:
            allowed.buckets[method] = buckets
        return bool(matching)

    def _refusing(self, method: str) -> Callable[..., Any]:
        def refuse(*params: Any) -> Any:
            self._limits.note(Cell.FORBIDDEN, f"Refusing a call of {escaped(method)}", "no rule of [access] allows it")
            raise Denied(f"Forbidden: no rule allows you to call {method}")

        return refuse

    def _rated(self, method: str, function: Callable[..., Any], buckets: tuple[Any, ...]) -> Callable[..., Any]:
        """Wrap ``function`` to take from all ``buckets`` first."""
        bucket, *more = buckets

        def call(*params: Any) -> Any:
            if bucket.tokens >= 1.0:
                bucket.tokens -= 1.0
            elif not bucket.take():
                raise self.refuse_rate(method)
            if more and not _take_all(more):
                bucket.tokens += 1.0
                raise self.refuse_rate(method)
            try:
                return function(*params)
            except HeldBack:  # it begins later, and takes then
                for each in buckets:
                    each.tokens += 1.0
                raise

        return call


def _take_all(buckets: Sequence[Any]) -> bool:
    """Take a call from each of ``buckets``, or from none."""
    for place, bucket in enumerate(buckets):
        if not bucket.take():
            for taken in buckets[:place]:
                taken.tokens += 1.0
            return False
    return True
