"""The options of a `TaskPool`: they are those of ``[pool:NAME]``, and checked as those are. Runs in the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rpccluster.config.sections.pool import POOL

__all__ = ["ANY", "pool_options"]

ANY = "*"  # the target that allows all


def pool_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were ``given``, as the pool's own master takes them. Raises ValueError."""
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name == "targets":
            options[name] = _targets(value)
        elif name == "env":
            options[name] = {key: _parsed(f"env.{key}", text) for key, text in (value or {}).items()}
        elif value is not None:
            options[name] = _parsed(name, value)
    return options


def _parsed(key: str, value: Any) -> Any:
    try:
        return POOL.option(key).type.parse(str(value))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _targets(value: Any) -> list[str]:
    if isinstance(value, str):
        raise ValueError(f"targets: found the text {value!r}, expected a list of modules, or module:function")
    return [target if target == ANY else _parsed("targets", target)[0] for target in value]
