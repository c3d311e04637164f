"""Which names callers may call, and what an exception becomes: the registry and the texts of errors."""

from __future__ import annotations

import enum
import functools
import types
from typing import Any, Callable

import msgpack
import pytest

from rpccluster.demo import Demo
from rpccluster.errors import ServiceUnfit
from rpccluster.service import Service, WorkerInfo, rpc
from rpccluster.worker.service.registry import Entry, Method, Registry, Runs

RESERVED = ["rpc.ping", "rpc.health", "rpc.discover"]


def registry(service: object, call_timeout: float = 0) -> Registry:
    """A registry that notes the limits it is asked to keep, on the functions."""

    def wrap(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        limited = functools.partial(function)
        limited.seconds = seconds  # type: ignore[attr-defined]
        return limited

    return Registry(service, call_timeout, wrap)


class Everything(Service):
    """What a class may have."""

    constant = 5
    NestedClass = dict
    dangerous = property(lambda self: 1 / 0)

    def __init__(self) -> None:
        self.instance_callable = lambda: "instance"
        self.instance_value = 3

    def __call__(self) -> None: ...

    def plain(self, a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    @staticmethod
    def static(a: int) -> int:
        return a

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    def _private(self) -> None: ...

    def __mangled(self) -> None: ...

    def worker_started(self, worker: WorkerInfo) -> None: ...

    @rpc(name="math.add")
    def renamed(self) -> None: ...

    built_in = len


def test_public_callables_are_the_methods() -> None:
    """Methods, static and class methods, callables of the instance, builtins; and the reserved names."""
    found = registry(Everything()).names
    assert found == ["built_in", "instance_callable", "of_class", "plain", "math.add", "static", *RESERVED]


def test_nothing_else_is() -> None:
    """Private names, hooks, values, classes, properties (which are not even looked at), what `object` has."""
    found = set(registry(Everything()).names)
    assert not found & {"_private", "_Everything__mangled", "__call__", "__init__", "worker_started", "worker_stopping"}
    assert not found & {"constant", "instance_value", "NestedClass", "dangerous", "renamed"}


def test_an_overridden_hook_is_still_no_method() -> None:
    """Nothing inherited from `Service` is, nor what takes its place."""

    class Hooked(Service):
        def worker_stopping(self, worker: WorkerInfo) -> None: ...

        def go(self) -> None: ...

    assert registry(Hooked()).names == ["go", *RESERVED]


def test_inherited_methods_are_methods() -> None:
    """From any other base."""

    class Child(Demo):
        def more(self) -> None: ...

    assert set(registry(Child()).names) == {*registry(Demo()).names, "more"}


def test_an_object_or_a_module_may_serve() -> None:
    """Deriving from `Service` is optional."""
    module = types.ModuleType("m")
    module.go = lambda: 1  # type: ignore[attr-defined]
    assert registry(module).names == ["go", *RESERVED]
    assert registry(types.SimpleNamespace(go=print)).names == ["go", *RESERVED]


def test_an_object_that_makes_up_its_names_may_serve() -> None:
    """A proxy: `__dir__` and `__getattr__` are all it has."""

    class Proxy:
        def __dir__(self) -> list[str]:
            return ["go", "value"]

        def __getattr__(self, name: str) -> Any:
            if name == "go":
                return lambda: "went"
            if name == "value":
                return 5
            raise AttributeError(name)

    found = registry(Proxy())
    assert found.names == ["go", *RESERVED]
    assert found.table["go"]() == "went"


class Computed:
    """A descriptor as some libraries have them: each look runs code."""

    def __get__(self, obj: Any, kind: Any = None) -> Any:
        LOOKED.append("computed")
        return lambda: 1


class Wrapper:
    """A decorator that is an object, as wrapt's are."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __get__(self, obj: Any, kind: Any = None) -> Any:
        return functools.partial(self.function, obj)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class Anything:
    """Has every attribute, and can be called."""

    def __getattr__(self, name: str) -> Any:
        LOOKED.append(name)
        return Anything()

    def __call__(self) -> int:
        return 7


LOOKED: list[str] = []


class Looked:
    """Attributes that do something when they are looked at."""

    anything = Anything()
    computed = Computed()

    def __init__(self) -> None:
        self.slot = 5

    @property
    def a_property(self) -> Any:
        raise SystemExit

    @functools.cached_property
    def cached(self) -> Any:
        LOOKED.append("cached")
        return lambda: 1

    @Wrapper
    def wrapped(self) -> str:
        return "wrapped"

    @functools.lru_cache  # noqa: B019
    def kept(self) -> str:
        return "kept"

    @functools.singledispatchmethod
    def by_kind(self, value: Any) -> str:
        return "by kind"

    half = functools.partialmethod(wrapped.function, 1)  # type: ignore[attr-defined]


Looked.of_class_property = classmethod(property(lambda cls: LOOKED.append("class property")))  # type: ignore[attr-defined]


def test_looking_has_no_effects(caplog: pytest.LogCaptureFixture) -> None:
    """What would be computed is left out, and told unless that is plain; what is a method in some way is one."""
    LOOKED.clear()
    found = registry(Looked())
    assert found.names == ["anything", "by_kind", "half", "kept", "wrapped", *RESERVED]
    assert [name for name in LOOKED if not name.startswith("_")] == []
    assert [found.table[name]() for name in ("anything", "kept", "wrapped")] == [7, "kept", "wrapped"]
    assert found.table["by_kind"](1) == "by kind"
    assert [record.getMessage() for record in caplog.records] == [
        "Leaving out the attribute computed of the service: reading would compute it (Computed)",
        "Leaving out the attribute of_class_property of the service: reading would compute it (classmethod)",
    ]


def test_one_odd_attribute_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """And keeps no worker from starting."""

    class Proxy:
        def __dir__(self) -> list[Any]:
            return ["go", "odd"]

        def __getattr__(self, name: str) -> Any:
            if name == "go":
                return lambda: "went"
            raise SystemExit(f"{name} is not there")

    assert registry(Proxy()).names == ["go", *RESERVED]
    assert caplog.messages == ["Leaving out the attribute odd of the service: SystemExit: odd is not there"]


def test_what_cannot_be_listed_cannot_serve() -> None:
    """A fault of the service, at a check as at a start."""

    class Unlisted:
        def __dir__(self) -> list[str]:
            raise KeyboardInterrupt

    with pytest.raises(ServiceUnfit, match="cannot list the attributes of Unlisted: KeyboardInterrupt"):
        registry(Unlisted())


def test_names_are_plain_strings() -> None:
    """Also those of an enumeration: a look-up runs none of their own code."""

    class Names(str, enum.Enum):
        COUNT = "count"

    class Service:
        @rpc(name=Names.COUNT)
        def method(self) -> int:
            return 3

    found = registry(Service())
    assert found.table["count"]() == 3
    assert all(type(name) is str for name in (*found.table, *found.numbers, *found.names))


def test_discover_survives_odd_methods() -> None:
    """One that raises when it is asked for its signature or docstring."""

    class Odd:
        __signature__ = property(lambda self: 1 / 0)
        __doc__ = property(lambda self: 1 / 0)  # type: ignore[assignment]

        def __call__(self) -> None: ...

    class Service:
        odd = Odd()

    assert registry(Service()).discover()["odd"] == {"signature": "(...)", "doc": ""}


def test_a_dotted_name_is_a_name_and_no_walk() -> None:
    """There is one dict of names, and nothing is looked up in attributes."""
    found = registry(Everything())
    assert "math.add" in found.table
    assert not {"plain.__self__", "plain.__func__", "NestedClass.keys"} & set(found.table)


def test_numbers_are_places() -> None:
    """Counted from 1: the master knows the names by them."""
    found = registry(Everything())
    assert [method.number for method in found.methods.values()] == list(range(1, len(found.names) + 1))
    assert found.numbers == {name: method.number for name, method in found.methods.items()}
    assert found.names[0] == "built_in"


# -- marks


def test_a_mark_renames_and_bounds() -> None:
    """`timeout` of the mark counts before call_timeout; 0 means none."""

    class Marked:
        @rpc(name="a-name", timeout=2)
        def one(self) -> None: ...

        @rpc(timeout=0)
        def two(self) -> None: ...

        def three(self) -> None: ...

        @rpc(name="dotted.name")
        def four(self) -> None: ...

    found = registry(Marked(), call_timeout=9)
    limits = {name: function.seconds for name, function in found.table.items()}  # type: ignore[attr-defined]
    assert limits == {"a-name": 2, "dotted.name": 9, "two": 0, "three": 9, **dict.fromkeys(RESERVED, 0)}


def test_a_mark_does_not_publish_what_is_private() -> None:
    """The underscore counts."""

    class Sly:
        @rpc(name="public")
        def _private(self) -> None: ...

        def go(self) -> None: ...

    assert registry(Sly()).names == ["go", *RESERVED]


# -- what cannot serve


def test_an_object_without_methods_cannot_serve() -> None:
    """Its class is named."""
    for service in (object(), Service(), types.SimpleNamespace(a=1)):
        with pytest.raises(ServiceUnfit, match=f"found no public methods in {type(service).__name__}"):
            registry(service)


def test_a_name_may_stand_once() -> None:
    """Whoever gave it."""

    class Twice:
        @rpc(name="b")
        def a(self) -> None: ...

        def b(self) -> None: ...

    with pytest.raises(ServiceUnfit, match="found two methods named 'b'"):
        registry(Twice())


def test_methods_say_where_they_run() -> None:
    """A coroutine, also one that an object's ``__call__`` is, runs on the loop; a marked one in a thread or a pool."""

    class Odd:
        async def __call__(self) -> None: ...

    class Kinds:
        def __init__(self) -> None:
            self.odd = Odd()

        def plain(self) -> None: ...

        async def go(self) -> None: ...

        @rpc(thread=True)
        def block(self) -> None: ...

        @rpc(pool="a")
        def compute(self) -> None: ...

    asked: list[tuple[Any, ...]] = []

    def native(runs: Runs, function: Any, pool: str | None) -> Entry:
        asked.append((runs, getattr(function, "__name__", "odd"), *([pool] if pool else [])))
        return Entry(function, lambda wrapped: wrapped)

    Registry(Kinds(), 0, lambda function, seconds: function, native)
    loop = [(Runs.ON_LOOP, "go"), (Runs.ON_LOOP, "odd")]
    assert asked == [(Runs.IN_THREAD, "block"), (Runs.IN_POOL, "compute", "a"), *loop]


def test_what_can_run_nowhere_is_a_fault() -> None:
    """Each says what was found, and what is expected."""

    class Threaded:
        @rpc(thread=True)
        async def go(self) -> None: ...

    class Later:
        @rpc(later=True)
        async def go(self) -> None: ...

    class Yields:
        async def go(self) -> Any:
            yield 1

    for service, text in [
        (Threaded(), "found the coroutine method 'go' marked with thread=True"),
        (Later(), "found the coroutine method 'go' marked with later=True"),
        (Yields(), "found the asynchronous generator 'go', expected a method that returns one value"),
    ]:
        with pytest.raises(ServiceUnfit, match=text):
            registry(service)
    with pytest.raises(ValueError, match="found later=True beside thread=True"):
        rpc(later=True, thread=True)


# -- reserved names


def test_ping_says_pong() -> None:
    """Whatever the service has."""
    assert registry(Demo()).table["rpc.ping"]() == "pong"


def test_discover_tells_signatures_and_docstrings() -> None:
    """As a person reads them, of every method, and in a form that can be packed."""
    told = registry(Everything()).discover()
    assert set(told) == set(registry(Everything()).names)
    assert told["plain"] == {"signature": "(a: int, b: int = 2) -> int", "doc": "Add."}
    assert told["math.add"]["doc"] == ""
    assert msgpack.unpackb(msgpack.packb(told)) == told


def test_each_method_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients ask, each at its first call with a deadline."""
    looked: list[str] = []
    signature = Method.signature
    monkeypatch.setattr(Method, "signature", lambda method: looked.append(method.name) or signature(method))
    served = registry(Everything())
    assert served.describe(["plain"]) == {"plain": served.discover()["plain"]}
    assert served.discover() == served.discover() == registry(Everything()).discover()
    assert sorted(looked) == sorted(2 * served.names)


def test_annotations_are_told_as_they_stand_in_the_source() -> None:
    """So that stubs have their types, whether Python keeps them as text or not; other text stays text."""

    def typed(a, b=1, *more, c=None):  # type: ignore[no-untyped-def]
        pass

    typed.__annotations__ = {"a": "list[int]", "b": int, "more": "no type", "c": "'str'", "return": "Optional[str]"}
    told = Method("typed", 1, typed, Runs.IN_GREENLET, Entry(typed, typed), None).signature()
    assert told == "(a: list[int], b: int = 1, *more: 'no type', c: 'str' = None) -> Optional[str]"


def test_a_builtin_that_tells_no_signature_is_told_all_the_same() -> None:
    """With dots for its parameters."""
    assert Method("min", 1, min, Runs.IN_GREENLET, Entry(min, min), None).signature().startswith("(")


def test_only_marked_methods_are_served_if_that_is_wanted() -> None:
    """The others are no methods, and need not be fit to be any."""

    class Shop:
        @rpc()
        def order(self) -> int:
            return 1

        @rpc(name="price.of")
        def price(self) -> int:
            return 2

        def inner(self) -> int:
            return 3

        async def stream(self):  # type: ignore[no-untyped-def]
            yield 4

    found = Registry(Shop(), 0, lambda function, seconds: function, marked_only=True)
    assert {name for name in found.names if not name.startswith("rpc.")} == {"order", "price.of"}
    with pytest.raises(ServiceUnfit, match="found no methods marked with rpc in object"):
        Registry(object(), 0, lambda function, seconds: function, marked_only=True)


def test_what_is_served_and_no_function_of_the_class_is_told() -> None:
    """Attributes of the object that can be called; any form of a method is none of them, nor is a marked one."""

    class Shop:
        whatever = functools.partial(int, "7")

        def __init__(self) -> None:
            self.connect = print
            self.marked = rpc()(lambda: 1)

        def plain(self) -> None: ...

        @staticmethod
        def static() -> None: ...

        @classmethod
        def of_class(cls) -> None: ...

        bound = functools.partialmethod(plain)

    found = Registry(Shop(), 0, lambda function, seconds: function)
    assert sorted(found.odd) == ["connect", "whatever"]
