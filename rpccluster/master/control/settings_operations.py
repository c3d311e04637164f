"""The methods of the control socket that concern values: to read and change them, their history, the way back.

A change waits its turn, and answers when it is in force in every process, or when it has failed. Runs in the master.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rpccluster.config import Machine, load
from rpccluster.config.changes.changing import divided, texts, with_values
from rpccluster.config.changes.writing import rewriting
from rpccluster.config.origin import nearest
from rpccluster.config.sections.cluster import CLUSTER
from rpccluster.errors import ConfigError, NotWritten, StartError
from rpccluster.failure import error_text
from rpccluster.log import logger
from rpccluster.master.changes.change import Change
from rpccluster.master.cluster import Cluster
from rpccluster.master.control.commands import Commands
from rpccluster.master.control.group_operations import Check, Outcome, expect
from rpccluster.master.control.server import Answer, Method
from rpccluster.master.history import Author

__all__ = ["SettingsOperations"]

#: Begins a change; None if there is nothing to change. Raises ConfigError, NotWritten, StartError and ValueError.
Begin = Callable[[], "Change | None"]


class SettingsOperations:
    """The methods ``config.…``."""

    def __init__(self, cluster: Cluster, commands: Commands, wait: Callable[[Check, Answer], None]) -> None:
        """``wait`` answers when a check has an outcome."""
        self._cluster = cluster
        self._commands = commands
        self._reloading = commands.reloading
        self._wait = wait

    def methods(self) -> Mapping[str, Method]:
        """Return the methods by their names."""
        return {
            "config.get": self._get,
            "config.diff": self._diff,
            "config.history": self._history,
            "config.set": self._set,
            "config.rollback": self._roll_back,
        }

    # -- looking

    def _get(self, params: list[Any], answer: Answer) -> None:
        """Answer all values in force, with their origins, or the one of a key."""
        expect(params, 0, 1)
        values = {key: {"value": text, "origin": place} for key, text, place in self._cluster.configuration.describe()}
        if not params:
            answer(None, {"version": self._cluster.settings_version, "values": values})
            return
        key = _plain(params[0])
        if key not in values:
            own = f"settings.{params[0]}"
            meant = f"; did you mean {own}?" if own in values else nearest(key, values)
            raise ValueError(f"found no key {params[0]!r}, expected one that has a value{meant}")
        answer(None, {"version": self._cluster.settings_version, "values": {key: values[key]}})

    def _diff(self, params: list[Any], answer: Answer) -> None:
        """Answer what the sources say now that differs from what is in force: old and new text by key."""
        expect(params, 0)
        running = texts(self._cluster.configuration)
        try:
            changed = texts(load(self._cluster.configuration.sources, Machine()))
        except ConfigError as error:
            answer(f"RuntimeError: {error}", None)
            return
        keys = [key for key in {**running, **changed} if running.get(key) != changed.get(key)]
        answer(None, {key: [running.get(key), changed.get(key)] for key in keys})

    def _history(self, params: list[Any], answer: Answer) -> None:
        """Answer the last versions, oldest first, and the number of the one in force."""
        expect(params, 0)
        versions = [version.told() for version in self._cluster.history.versions]
        answer(None, {"version": self._cluster.settings_version, "versions": versions})

    # -- changing

    def _set(self, params: list[Any], answer: Answer) -> None:
        """Change values in every process; with ``write`` in the file, too, else until the next reload or start."""
        expect(params, 1, 2)
        changes = _changes(params[0])
        write = bool(params[1:] and params[1].get("write"))
        told = " ".join(["config set", *(f"{key}={text}" for key, text in changes.items()), *["--write"] * write])
        self._change(lambda: self._begin(changes, Author(told, answer.uid), write=write), answer)

    def _roll_back(self, params: list[Any], answer: Answer) -> None:
        """Bring the values of an older version back, under a new number; without a number those of the one before."""
        expect(params, 0, 1)
        wanted = params[0] if params else None
        if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, int)):
            raise ValueError(f"found {wanted!r}, expected the number of a version")

        def begin() -> Change | None:
            present = self._cluster.settings_version
            undone = self._cluster.history.undoing(present, wanted)
            sections = self._cluster.configuration.sections()
            changes = {name: text for name, text in undone.items() if divided(name)[0] in sections}
            number = present - 1 if wanted is None else wanted
            return self._begin(changes, Author(f"config rollback {number}", answer.uid))

        self._change(begin, answer)

    def _begin(self, changes: Mapping[str, str | None], author: Author, *, write: bool = False) -> Change | None:
        running = self._cluster.configuration
        changed = with_values(running, changes, Machine())
        written = rewriting(running, {name: text or "" for name, text in changes.items()}) if write else None
        if written is not None:
            changed = with_values(running, changes, Machine(), written.places)
            changed = changed.with_content(written.path, written.new)
        elif texts(changed) == texts(running):
            return None
        return self._reloading.change(changed, [divided(name) for name in changes], author, written)

    def _change(self, begin: Begin, answer: Answer) -> None:
        """Begin a change when no other one is under way, and answer when it is done."""
        begun: list[Change] = []

        def check() -> Outcome | None:
            if not begun:
                refusal = self._refusal()
                if refusal:
                    return Outcome(f"RuntimeError: {refusal}")
                if self._reloading.is_under_way:
                    return None
                try:
                    change = begin()
                except (ConfigError, NotWritten, StartError) as error:
                    return Outcome(f"RuntimeError: {error}")
                except ValueError as error:
                    return Outcome(f"ArgumentError: {error}")
                except Exception as error:  # a fault of rpccluster must not keep other answers waiting
                    logger.exception("A change of the configuration failed")
                    return Outcome(error_text(error))
                if change is None:
                    return self._done()
                begun.append(change)
            (change,) = begun
            if not change.is_done:
                return None
            return Outcome(f"RuntimeError: {change.failure}") if change.failure else self._done()

        self._wait(check, answer)

    def _done(self) -> Outcome:
        return Outcome(None, {"version": self._cluster.settings_version})

    def _refusal(self) -> str:
        """Say why values cannot change now; empty if they can."""
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
    """Return the texts that ``given`` sets, by the names of their options. Raises ValueError."""
    if not isinstance(given, dict) or not given:
        raise ValueError("found no changes, expected an object of keys and texts")
    for key, text in given.items():
        if not isinstance(key, str) or not isinstance(text, str) or "\0" in text:
            raise ValueError(f"found {key!r}: {text!r}, expected texts")
    return {_plain(key): text.strip() for key, text in given.items()}
