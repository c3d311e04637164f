"""Collects the methods of a service, by the names that callers use. Runs in the worker; no I/O, no gevent.

A service's methods are collected once, at boot, so that a call costs one look-up in a dict.
"""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import types
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from rpccluster.errors import ServiceUnfit
from rpccluster.failure import error_text
from rpccluster.leading.page import lead_page
from rpccluster.live_settings import HOOKS
from rpccluster.log import escaped, logger
from rpccluster.protocol.bounded import RESERVED
from rpccluster.service import RPCMark, Service
from rpccluster.worker.service.later import HeldBack, parking, unless_left
from rpccluster.worker.service.leader_only import Leading

if TYPE_CHECKING:
    from rpccluster.worker.service.tracing import Tracing

__all__ = ["Entry", "Method", "Native", "Registry", "Runs"]

#: Wraps a function in its limit in seconds, 0 for none, for calls to run.
Wrap = Callable[[Callable[..., Any], float], Callable[..., Any]]


class Runs(enum.Enum):
    """Says where the calls of a method run."""

    IN_GREENLET = "in a greenlet"
    IN_THREAD = "in a native thread"
    ON_LOOP = "on the asyncio loop"
    IN_POOL = "in a process of a pool"


class Entry(NamedTuple):
    """The way into a method: ``inner`` begins a call, ``outer`` wraps that with its limit and log once more."""

    inner: Callable[..., Any]
    outer: Callable[[Callable[..., Any]], Callable[..., Any]]


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


#: Makes the entry of a method whose calls do not run in greenlets; the name is that of its pool, if it has one.
Native = Callable[[Runs, Callable[..., Any], Optional[str]], Entry]


@dataclass(frozen=True)
class Method:
    """A method that callers may call; ``number`` is its place in the registry, from 1."""

    name: str
    number: int
    plain: Callable[..., Any]
    runs: Runs
    entry: Entry
    timeout: float | None  # of its own; None if `call_timeout` holds
    leader_only: bool = False
    cancel_on_disconnect: bool | None = None  # its own; None if the option holds

    def signature(self) -> str:
        """Return the parameters in readable form; ``(...)`` if Python does not know them.

        Annotations that Python keeps as text, as under ``from __future__ import annotations``, are told like others.
        """
        try:
            found = inspect.signature(self.plain)
            params = [each.replace(annotation=_as_written(each.annotation)) for each in found.parameters.values()]
            return str(found.replace(parameters=params, return_annotation=_as_written(found.return_annotation)))
        except Exception:  # it has none, or a made-up one
            return "(...)"

    def doc(self) -> str:
        """Return the docstring; empty if there is none."""
        try:
            return inspect.getdoc(self.plain) or ""
        except Exception:
            return ""


class _Written(str):
    """An annotation as it stands in the source."""

    __repr__ = str.__str__


def _as_written(annotation: Any) -> Any:
    """Return an annotation that is shown without quotes if it is the text of one."""
    if type(annotation) is not str:
        return annotation
    try:
        ast.parse(annotation, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return annotation
    return _Written(annotation)


class Registry:
    """The methods of one service, by their names for callers."""

    def __init__(
        self,
        service: object,
        call_timeout: float,
        wrap: Wrap,
        native: Native | None = None,
        *,
        marked_only: bool = False,
    ) -> None:
        """``call_timeout`` is in seconds, 0 for none; ``wrap`` wraps a function in such a limit.

        With ``marked_only`` the methods are those with the mark `rpccluster.rpc` alone.

        ``native`` makes the entries of methods that do not run in greenlets; without it they can be looked at alone.
        Raises `ServiceUnfit`.
        """
        self.leading = Leading(lead_page())
        self._wrap = wrap
        self._native = native
        self._marks: dict[str, RPCMark] = {}
        self.methods: dict[str, Method] = {}
        self.table: dict[str, Callable[..., Any]] = {}  # the wrapped functions, for the hot path
        self.table_when_full: dict[str, Callable[..., Any]] = {}  # while no greenlet is free; empty if all need one
        self.tables = (self.table, self.table_when_full)
        self.numbers: dict[str, int] = {}
        self._followers: list[Callable[[], object]] = []
        self._own: dict[str, Callable[..., Any]] = {}  # methods of the engine's own
        self._told: dict[
            str, dict[str, str]
        ] = {}  # what `describe` has told: each client asks, and a method takes 0.3 ms
        self.cancelling: frozenset[str] = frozenset()  # methods whose calls end when their caller has gone
        self.is_healthy = True
        self.odd: list[str] = []  # public attributes that are served and are no functions of the class
        for name, function, mark in _public_callables(service):
            if mark is not None or not marked_only:
                self._add_public(name, function, mark)
                self.odd += [] if mark is not None or _is_of_class(service, name) else [name]
        if not self.methods:
            what = "methods marked with rpc" if marked_only else "public methods"
            raise ServiceUnfit(f"found no {what} in {type(service).__name__}, expected at least one")
        self._add("rpc.ping", self.ping, _UNLIMITED)
        self._add("rpc.health", self.health, _UNLIMITED)
        self._add("rpc.discover", self.discover, _UNLIMITED)
        self.wrap_all(call_timeout)

    def add_own(self, name: str, function: Callable[..., Any]) -> None:
        """Add a method of the engine's own, which calls that wait for a greenlet do not hold up, and no limit ends."""
        self._add(name, function, _UNLIMITED)
        self.table[name] = self._own[name] = function
        if self.table_when_full:
            self.table_when_full[name] = function
        self._tell()

    def wrap_all(self, call_timeout: float, cancel_on_disconnect: bool = False) -> None:
        """Wrap all methods again, for calls that begin from now on."""
        self.cancelling = frozenset(
            name
            for name, method in self.methods.items()
            if (cancel_on_disconnect if method.cancel_on_disconnect is None else method.cancel_on_disconnect)
        )
        for name, method in self.methods.items():
            seconds = call_timeout if method.timeout is None else method.timeout
            wrapped = method.entry.outer(self._wrap(method.entry.inner, seconds))
            if name in self.cancelling:
                wrapped = unless_left(wrapped)
            self.table[name] = self.leading.wrap(wrapped) if method.leader_only else wrapped
        if any(method.runs is not Runs.IN_GREENLET for method in self.methods.values()):
            for name, method in self.methods.items():
                needs_one = method.runs is Runs.IN_GREENLET
                self.table_when_full[name] = _wait_for_a_greenlet if needs_one else self.table[name]
        for table in (self.table, self.table_when_full) if self.table_when_full else (self.table,):
            table.update(self._own)
        self._tell()

    def _tell(self) -> None:
        for tell in self._followers:
            tell()

    def follow(self, tell: Callable[[], object]) -> None:
        """Call ``tell`` now, and each time the methods were wrapped again."""
        self._followers.append(tell)
        tell()

    def trace(self, tracing: Tracing) -> None:
        """Let calls of the service's methods have spans; `wrap_all` has to follow."""
        for name, method in self.methods.items():
            if not name.startswith(RESERVED):
                self.methods[name] = replace(method, entry=self._traced(tracing, method))

    def _traced(self, tracing: Tracing, method: Method) -> Entry:
        """Return the way into ``method`` with a span: where it runs, or where it is handed over to a pool."""
        mark, plain = self._marks[method.name], method.plain
        if method.runs in (Runs.IN_GREENLET, Runs.IN_POOL):
            return Entry(tracing.wrap(method.name, method.entry.inner), method.entry.outer)
        wrap = tracing.wrap_coroutine if method.runs is Runs.ON_LOOP else tracing.wrap
        return self._entry(method.runs, wrap(method.name, plain), mark)

    @property
    def names(self) -> list[str]:
        """Return all names in the order of their numbers."""
        return list(self.methods)

    def ping(self) -> str:
        """Answer "pong": the worker is alive."""
        return "pong"

    def health(self) -> bool:
        """Tell whether the worker can serve, as its service has said."""
        return self.is_healthy

    def discover(self) -> dict[str, dict[str, str]]:
        """Return all methods: name to ``{"signature": …, "doc": …}``."""
        return self.describe(self.methods)

    def describe(self, names: Collection[str]) -> dict[str, dict[str, str]]:
        """Return the methods with these ``names`` as `discover` does."""
        told = self._told
        for name, method in self.methods.items():
            if name in names and name not in told:
                told[name] = {"signature": method.signature(), "doc": method.doc()}
        return {name: told[name] for name in self.methods if name in names}

    def _add_public(self, attribute: str, function: Callable[..., Any], mark: RPCMark | None) -> None:
        name = (mark and mark.name) or attribute
        if name.startswith(RESERVED):
            raise ServiceUnfit(f"found a method named {name!r}, expected none that begins with 'rpc.'")
        self._add(name, function, mark or _UNMARKED)

    def _add(self, name: str, plain: Callable[..., Any], mark: RPCMark) -> None:
        name = str.__str__(name)  # a mark may hold a subclass of str, whose own comparisons the hot path would run
        if name in self.methods:
            raise ServiceUnfit(f"found two methods named {name!r}, expected each name once")
        number = len(self.methods) + 1
        runs = _runs(name, plain, mark)
        self._marks[name] = mark
        entry = self._entry(runs, plain, mark)
        self.methods[name] = Method(
            name, number, plain, runs, entry, mark.timeout, mark.leader_only, mark.cancel_on_disconnect
        )
        self.numbers[name] = number

    def _entry(self, runs: Runs, plain: Callable[..., Any], mark: RPCMark) -> Entry:
        if runs is Runs.IN_GREENLET:
            return Entry(parking(plain) if mark.later else plain, _as_it_is)
        if mark.leader_only and runs is not Runs.IN_POOL:
            plain = self.leading.checked(plain)
        return Entry(plain, _as_it_is) if self._native is None else self._native(runs, plain, mark.pool)


_UNLIMITED = RPCMark(None, 0)
_UNMARKED = RPCMark(None, None)


def _wait_for_a_greenlet(*params: Any) -> Any:
    raise HeldBack


def _runs(name: str, function: Callable[..., Any], mark: RPCMark) -> Runs:
    """Return where the calls of a method run. Raises `ServiceUnfit` for one that cannot run anywhere."""
    if _is(inspect.isasyncgenfunction, function):
        raise ServiceUnfit(f"found the asynchronous generator {name!r}, expected a method that returns one value")
    if not _is(inspect.iscoroutinefunction, function):
        return Runs.IN_POOL if mark.pool else Runs.IN_THREAD if mark.thread else Runs.IN_GREENLET
    for word, is_set in (("thread=True", mark.thread), ("later=True", mark.later), ("pool", mark.pool)):
        if is_set:
            raise ServiceUnfit(
                f"found the coroutine method {name!r} marked with {word}, expected a plain method, or no such "
                "mark: coroutines run on the worker's asyncio loop, and are answered when they return"
            )
    return Runs.ON_LOOP


def _public_callables(service: object) -> Iterator[tuple[str, Callable[..., Any], RPCMark | None]]:
    hidden = {*dir(Service), *HOOKS}
    for name in _names_of(service):
        if not name.startswith("_") and name not in hidden:
            function = _look_at(service, name)
            if callable(function) and not issubclass(type(function), type):
                yield name, function, _mark_of(function)


def _names_of(service: object) -> list[str]:
    try:
        return [str.__str__(name) for name in dir(service) if issubclass(type(name), str)]
    except BaseException as error:  # a `__dir__` may do anything
        raise ServiceUnfit(f"cannot list the attributes of {type(service).__name__}: {error_text(error)}") from error


def _look_at(service: object, name: str) -> Any:
    """Return the attribute; log and return None if it would be computed, or cannot be read."""
    try:
        found = inspect.getattr_static(service, name, None)
        if not _is_computed(found):
            return getattr(service, name)
    except BaseException as error:  # a `__getattr__` may do anything, too
        logger.warning("Leaving out the attribute %s of the service: %s", escaped(name), escaped(error_text(error)))
        return None
    if not isinstance(found, (property, functools.cached_property)):
        kind = escaped(type(found).__name__)
        logger.warning(
            "Leaving out the attribute %s of the service: reading would compute it (%s)", escaped(name), kind
        )
    return None


def _is_computed(found: object) -> bool:
    """Return whether ``found``, an attribute of the class, is a descriptor that computes its value.

    Python's own kinds of methods, and descriptors that can be called themselves, do not count.
    """
    if isinstance(found, classmethod):
        return _is_computed(found.__func__)
    if inspect.getattr_static(type(found), "__get__", None) is None or isinstance(found, _METHODS):
        return False
    return not callable(found)


_METHODS = (
    staticmethod,
    functools.partialmethod,
    functools.singledispatchmethod,
    types.MemberDescriptorType,  # a name in `__slots__`
)


def _is_of_class(service: object, name: str) -> bool:
    """Return whether a public attribute is a function of the service's class, in any form that a class has them."""
    found = inspect.getattr_static(type(service), name, None)
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    return inspect.isroutine(found) or isinstance(found, (functools.partialmethod, functools.singledispatchmethod))


def _mark_of(function: Callable[..., Any]) -> RPCMark | None:
    try:
        mark = getattr(function, "__rpc__", None)
    except Exception:
        mark = None
    return mark if type(mark) is RPCMark else None


def _is(test: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Return whether ``function``, or the ``__call__`` of such an object, passes ``test``."""
    try:
        return test(function) or test(type(function).__call__)
    except Exception:
        return False
