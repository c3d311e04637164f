"""The value types of options that only sections of processes have: programs, signals, groups. Any process.

Beside `rpccluster.config.values`, by the same rules: it looks at the text alone.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
from typing import Any, cast

from rpccluster.config.cpus import CPU_INHERITED, CPUChoice
from rpccluster.config.values import CPUS, SERVICE, ValueType, integer, items, optional

__all__ = [
    "ARGUMENTS",
    "COMMAND",
    "CPUS_OR_CLUSTERS",
    "GROUPS",
    "GROUP_NAMES",
    "NICE",
    "RELOAD_SIGNAL",
    "RUN",
    "SIGNAL",
    "TARGETS",
    "TEXT",
]

#: The names of groups that are no plugin's or pool's own; no plugin has one of them.
GROUP_NAMES = ("workers", "pools", "queues", "leadership", "web")

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")


def _read_text(text: str) -> str:
    if "\0" in text:
        raise ValueError(text)
    return text


def _read_command(text: str) -> tuple[str, ...]:
    return tuple(shlex.split(_read_text(text)))


def _read_arguments(text: str) -> tuple[Any, ...]:
    if text[:1] in ("[", "{"):
        return (json.loads(text),)
    return (_read_text(text),) if text else ()


def _write_arguments(arguments: tuple[Any, ...]) -> str:
    return "".join(each if isinstance(each, str) else json.dumps(each) for each in arguments)


def _read_signal(text: str) -> signal.Signals:
    name = text.upper()
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise ValueError(text) from None


def _write_signal(signum: signal.Signals) -> str:
    return signum.name[len("SIG") :]


def _read_targets(text: str) -> tuple[str, ...]:
    targets = tuple(items(text))
    if not all(_TARGET.fullmatch(target) for target in targets):
        raise ValueError(text)
    return targets


def _read_groups(text: str) -> tuple[str, ...]:
    groups = tuple(item if ":" in item or item in GROUP_NAMES else f"plugin:{item}" for item in items(text))
    if any(group.endswith(":") for group in groups):
        raise ValueError(text)
    return groups


RUN = cast("ValueType[str]", optional(ValueType("module:function or module:Class", SERVICE.read), ""))
COMMAND = ValueType("a program and its arguments, in shell words", _read_command, shlex.join)
ARGUMENTS = ValueType("text, or a list or an object in JSON", _read_arguments, _write_arguments)
TEXT = ValueType("text without NUL", _read_text)
GROUPS = ValueType("names of groups or plugins, separated by commas", _read_groups, ", ".join)
SIGNAL = ValueType("a signal's name, such as TERM", _read_signal, _write_signal)
RELOAD_SIGNAL = optional(SIGNAL, None, "none")
TARGETS = ValueType("modules, or module:function, separated by commas", _read_targets, ", ".join)
NICE = optional(integer(-20, 19), None)
CPUS_OR_CLUSTERS = cast("ValueType[CPUChoice]", optional(CPUS, CPU_INHERITED))
