"""The methods of the control socket that concern the configuration's values: to read them, and to change settings.

A change answers when every process has switched, or when one has refused. Runs in the master.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rpccluster.config import Machine, load
from rpccluster.config.origin import nearest
from rpccluster.config.sections.cluster import CLUSTER
from rpccluster.config.sections.settings import SETTINGS
from rpccluster.config.writing import rewriting
from rpccluster.errors import ConfigError, NotWritten
from rpccluster.master.changes.pushing import Pushing
from rpccluster.master.cluster import Cluster
from rpccluster.master.control.commands import Commands
from rpccluster.master.control.group_operations import Check, Outcome, expect
from rpccluster.master.control.server import Answer, Method

__all__ = ["SettingsOperations"]

_PREFIX = f"{SETTINGS.name}."


class SettingsOperations:
    """The methods ``config.…``."""

    def __init__(
        self, cluster: Cluster, pushing: Pushing, commands: Commands, wait: Callable[[Check, Answer], None]
    ) -> None:
        """``wait`` answers when a check has an outcome."""
        self._cluster = cluster
        self._pushing = pushing
        self._commands = commands
        self._wait = wait

    def methods(self) -> Mapping[str, Method]:
        """Return the methods by their names."""
        return {"config.get": self._get, "config.diff": self._diff, "config.set": self._set}

    def _get(self, params: list[Any], answer: Answer) -> None:
        """Answer all values in force, with their origins, or the one of a key."""
        expect(params, 0, 1)
        values = {key: {"value": text, "origin": place} for key, text, place in self._cluster.configuration.describe()}
        if not params:
            answer(None, {"version": self._cluster.settings_version, "values": values})
            return
        key = _plain(params[0])
        if key not in values:
            raise ValueError(f"found no key {params[0]!r}, expected one that has a value{nearest(key, values)}")
        answer(None, {"version": self._cluster.settings_version, "values": {key: values[key]}})

    def _diff(self, params: list[Any], answer: Answer) -> None:
        """Answer what the sources say now that differs from what is in force: old and new text by key."""
        expect(params, 0)
        running = _texts(self._cluster.configuration.describe())
        try:
            changed = _texts(load(self._cluster.configuration.sources, Machine()).describe())
        except ConfigError as error:
            answer(f"RuntimeError: {error}", None)
            return
        keys = [key for key in {**running, **changed} if running.get(key) != changed.get(key)]
        answer(None, {key: [running.get(key), changed.get(key)] for key in keys})

    def _set(self, params: list[Any], answer: Answer) -> None:
        """Change settings in every process; with ``write`` in the file, too, else until the next reload or start."""
        expect(params, 1, 2)
        changes = _changes(params[0])
        refusal = self._refusal()
        if refusal:
            answer(f"RuntimeError: {refusal}", None)
            return
        present = self._cluster.settings.texts
        change = None
        if params[1:] and params[1].get("write"):
            try:
                change = rewriting(self._cluster.configuration, changes)
            except NotWritten as error:
                answer(f"RuntimeError: {error}", None)
                return
        if change is None and all(present.get(key) == text for key, text in changes.items()):
            answer(None, {"version": self._cluster.settings_version})
            return
        self._pushing.begin({**present, **changes}, change)

        def check() -> Outcome | None:
            if self._pushing.is_under_way:
                return None
            if self._pushing.failure:
                return Outcome(f"RuntimeError: {self._pushing.failure}")
            return Outcome(None, {"version": self._cluster.settings_version})

        self._wait(check, answer)

    def _refusal(self) -> str:
        """Say why settings cannot change now; empty if they can."""
        if self._pushing.is_under_way:
            return "another change of the settings is under way"
        if self._commands.reloading.is_under_way:
            return "the cluster is reloading"
        if self._commands.new_master.is_under_way:
            return "the cluster is upgrading"
        phase = self._cluster.phase
        return "" if phase.allows.may_change else f"the cluster is {phase.value}"


def _plain(key: Any) -> str:
    """Return the name of a key among all sections: one of [cluster] has no prefix."""
    text = str(key)
    prefix = f"{CLUSTER.name}."
    return text[len(prefix) :] if text.startswith(prefix) else text


def _changes(given: Any) -> dict[str, str]:
    """Return the settings that ``given`` sets, by their keys in ``[settings]``. Raises ValueError."""
    if not isinstance(given, dict) or not given:
        raise ValueError("found no changes, expected an object of keys and texts")
    for key, text in given.items():
        if not isinstance(key, str) or not isinstance(text, str) or "\0" in text:
            raise ValueError(f"found {key!r}: {text!r}, expected texts")
        if not key.startswith(_PREFIX) or key == _PREFIX:
            raise ValueError(f"cannot set {key}: found no key of [settings], expected one; a reload reads the others")
    return {key[len(_PREFIX) :]: text.strip() for key, text in given.items()}


def _texts(described: Any) -> dict[str, str]:
    return {key: text for key, text, _ in described}
