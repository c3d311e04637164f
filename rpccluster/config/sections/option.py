"""Describes options and sections of the configuration, as data. Any process.

A file beside this one describes each section: a dataclass of its options, and the checks that need more than one value.
The reader of the file, the command line, etc/ and the documentation follow these descriptions.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, cast

from rpccluster.config.checks import Complaint, Machine
from rpccluster.config.values import ValueType

__all__ = ["Effect", "Option", "Section", "compute_defaults", "computed", "family", "fixed", "live", "option"]

T = TypeVar("T")


class Effect(enum.Enum):
    """The time at which a change of an option takes effect."""

    NOW = "now"  # at once, in the processes that run: for existing connections, and for calls that begin afterwards
    PROCESSES = "processes"  # in new processes: those of the section are replaced, since they were born with it
    RESTART = "restart"  # at the next start of the master: a change is refused


@dataclass(frozen=True)
class Option:
    """Describes one option.

    ``default`` is a value, or None if ``compute`` derives it from the machine or from other options of its section.
    ``default_text`` writes the default as a file would, or describes a computed one. ``flags`` are its command-line
    flags, the long one last. An option that ``is_family`` is a mapping: of its values by what stands behind the dot of
    their keys, such as ``env.KEY``. ``reason`` says why it cannot change before the next start, if it cannot.
    """

    type: ValueType[Any]
    default: Any
    meaning: str
    effect: Effect = Effect.PROCESSES
    flags: tuple[str, ...] = ()
    compute: Callable[[Any], Any] | None = None
    default_text: str = ""
    is_family: bool = False
    reason: str = ""


def option(
    value_type: ValueType[T],
    default: T,
    meaning: str,
    *,
    effect: Effect = Effect.PROCESSES,
    flags: tuple[str, ...] = (),
    reason: str = "",
) -> T:
    """Make a field of a section's dataclass: an option with a fixed default."""
    described = Option(value_type, default, meaning, effect, flags, None, value_type.write(default), reason=reason)
    return field(default=default, metadata={"option": described})


def live(value_type: ValueType[T], default: T, meaning: str, *, flags: tuple[str, ...] = ()) -> T:
    """Make a field of a section's dataclass: an option whose change takes effect at once, in running processes."""
    return option(value_type, default, meaning, effect=Effect.NOW, flags=flags)


def fixed(value_type: ValueType[T], default: T, meaning: str, *, reason: str, flags: tuple[str, ...] = ()) -> T:
    """Make a field of a section's dataclass: an option that cannot change before the next start, for ``reason``."""
    return option(value_type, default, meaning, effect=Effect.RESTART, flags=flags, reason=reason)


def computed(
    value_type: ValueType[T],
    compute: Callable[[Any], T],
    default_text: str,
    meaning: str,
    *,
    effect: Effect = Effect.PROCESSES,
    flags: tuple[str, ...] = (),
    reason: str = "",
) -> T:
    """Make a field of a section's dataclass: an option whose default ``compute`` derives from the others."""
    described = Option(value_type, None, meaning, effect, flags, compute, default_text, reason=reason)
    return cast(T, field(default=None, metadata={"option": described}))


def family(value_type: ValueType[T], meaning: str, *, effect: Effect = Effect.PROCESSES) -> Mapping[str, T]:
    """Make a field of a section's dataclass: the values of all keys ``FIELD.KEY``, by KEY, whose case is kept."""
    described = Option(value_type, MappingProxyType({}), meaning, effect, is_family=True)
    return field(default_factory=lambda: described.default, metadata={"option": described})


def compute_defaults(options: Any) -> None:
    """Fill in options that were not given and have computed defaults; for a section's ``__post_init__``."""
    for key, described in _options_of(options.__class__).items():
        if described.compute is not None and getattr(options, key) is None:
            object.__setattr__(options, key, described.compute(options))


@cache
def _options_of(values: type) -> Mapping[str, Option]:
    described = {each.name: each.metadata["option"] for each in fields(values) if "option" in each.metadata}
    return MappingProxyType(described)


def _find_nothing(options: Any, machine: Machine, config_path: str | None) -> list[Complaint]:
    return []


@dataclass(frozen=True)
class Section:
    """Describes one section, ``[name]``, or any number of sections ``[name:NAME]`` if ``is_named``.

    ``values`` is the frozen dataclass of its options; other code fills in those of its fields that describe none.
    ``complaints`` returns the options' faults on a machine, given the path of their file. ``required`` are the keys
    that the section must have, ``reserved`` the names that no section ``[name:NAME]`` has. ``makes_processes`` if a
    cluster of such sections alone does something. One that ``is_open`` takes any key, and none from ``[DEFAULT]``; its
    values are a mapping, the only field of ``values``.
    """

    name: str
    values: type
    complaints: Callable[[Any, Machine, str | None], list[Complaint]] = _find_nothing
    required: tuple[str, ...] = ()
    is_named: bool = False
    reserved: tuple[str, ...] = ()
    makes_processes: bool = False
    is_open: bool = False
    options: Mapping[str, Option] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", _options_of(self.values))

    def knows(self, key: str) -> bool:
        """Return whether ``key`` sets an option, such as ``command`` or ``env.KEY``."""
        name, _, own = key.partition(".")
        return name in self.options and self.options[name].is_family == bool(own) == ("." in key)

    def option(self, key: str) -> Option:
        """Return the option that ``key`` sets. Raises KeyError if there is none."""
        found = self.options.get(key)
        return self.options[key.partition(".")[0]] if found is None else found

    def names(self, like: str) -> list[str]:
        """Return the keys that ``like`` may mean; one of a family has the name that ``like`` has behind its dot."""
        own = like.partition(".")[2] or "KEY"
        return [f"{name}.{own}" if option.is_family else name for name, option in self.options.items()]

    def keys(self, values: Any) -> Iterator[str]:
        """Yield the keys of all options of ``values``, in order; of a family those that are set."""
        for name, option in self.options.items():
            if option.is_family:
                yield from (f"{name}.{own}" for own in getattr(values, name))
            else:
                yield name

    def value(self, values: Any, key: str) -> Any:
        """Return the value of ``key`` in ``values``."""
        if "." not in key:
            return getattr(values, key)
        name, _, own = key.partition(".")
        return getattr(values, name)[own]

    def make(self, given: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
        """Make the values of a section. ``given`` has the options' by their keys, ``fields`` those of other fields."""
        plain = {key: value for key, value in given.items() if "." not in key}
        families: dict[str, dict[str, Any]] = {}
        for key in given.keys() - plain.keys():
            name, _, own = key.partition(".")
            families.setdefault(name, {})[own] = given[key]
        return self.values(**plain, **fields, **{name: MappingProxyType(found) for name, found in families.items()})

    @property
    def header(self) -> str:
        """The header of the section, for a fault."""
        return f"[{self.name}:NAME]" if self.is_named else f"[{self.name}]"
