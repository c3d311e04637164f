"""The history of a cluster's versions: number, time, who has changed what. Pure, but for reading its file.

A version is what is in force at a time: all settings and options. The history keeps the last changes, and the values
after them, so that a later start knows what a changed file has changed, and numbers go on. Its file stands beside the
pidfile, else beside the configuration file; a cluster that has neither keeps its history in memory. Runs in the master.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from rpccluster.config.changes.changing import divided, texts
from rpccluster.config.configuration import Configuration
from rpccluster.config.sections import section_of
from rpccluster.config.sections.option import Effect

__all__ = ["Author", "History", "Version", "changes_between", "history_path", "read_history", "values_of"]

KEPT_VERSIONS = 20
_LARGEST_FILE = 64 << 20

#: Old and new text of each value that differs, by its name; None where there is none.
Changes = Mapping[str, "tuple[str | None, str | None]"]


class Author(NamedTuple):
    """The command that asks for a change, and the uid of its user; None if that is not known."""

    command: str
    uid: int | None = None


class Version(NamedTuple):
    """One version; ``time`` is in UTC, in the form of ISO 8601."""

    number: int
    time: str
    uid: int | None
    command: str
    changes: Changes

    def told(self) -> dict[str, Any]:
        """Return it as ``config history`` answers it, and as its file has it."""
        changes = {name: list(pair) for name, pair in self.changes.items()}
        who = {"uid": self.uid, "command": self.command}
        return {"version": self.number, "time": self.time, **who, "changes": changes}


@dataclass(frozen=True)
class History:
    """The last versions, oldest first, and the values after them.

    ``path`` is its file; None if it has none. ``number`` is that of the last version; 0 if there was none. A start
    takes a number, too, and is a version only if the files have changed since the cluster ended.
    """

    path: str | None = None
    versions: tuple[Version, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    number: int = 0

    def with_version(self, version: Version, values: Mapping[str, str]) -> History:
        """Return the history with one version more, after which ``values`` are in force."""
        kept = (*self.versions, version)[-KEPT_VERSIONS:]
        return replace(self, versions=kept, values=values, number=version.number)

    def with_start(self, time: str, uid: int, values: Mapping[str, str]) -> History:
        """Return the history of a cluster that starts with ``values``, after one that has left this history."""
        changes = changes_between(self.values, values)
        if not changes:
            return replace(self, number=self.number + 1)
        return self.with_version(Version(self.number + 1, time, uid, "start", changes), values)

    def undoing(self, present: int, wanted: int | None) -> dict[str, str | None]:
        """Return the texts that lead from the version ``present`` to ``wanted``; None there means the one before.

        Raises ValueError for a version that the history does not reach.
        """
        wanted = present - 1 if wanted is None else wanted
        oldest = self.versions[0].number - 1 if self.versions else present
        if not oldest <= wanted <= present:
            known = f"one of {oldest} to {present}" if oldest < present else f"{present}: there is no older one"
            raise ValueError(f"found the version {wanted}, expected {known}")
        undone: dict[str, str | None] = {}
        for version in reversed(self.versions):
            if version.number > wanted:
                undone.update({name: old for name, (old, _) in version.changes.items()})
        return undone

    def told(self) -> dict[str, Any]:
        """Return what its file has."""
        versions = [version.told() for version in self.versions]
        return {"version": self.number, "versions": versions, "values": dict(self.values)}

    def encoded(self) -> bytes:
        """Return the content of its file."""
        return json.dumps(self.told(), indent=1).encode()

    def decoded(self, data: bytes | str) -> History:
        """Return the history that ``data`` has, in the file of this one. Raises ValueError."""
        try:
            told = json.loads(data)
            versions = tuple(_version(each) for each in told["versions"])
            values = {str(name): str(text) for name, text in told["values"].items()}
            return replace(self, versions=versions, values=values, number=int(told["version"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"found no history, expected one ({type(error).__name__})") from error


def _version(told: Mapping[str, Any]) -> Version:
    uid = None if told["uid"] is None else int(told["uid"])
    changes = {str(name): (_text(old), _text(new)) for name, (old, new) in told["changes"].items()}
    return Version(int(told["version"]), str(told["time"]), uid, str(told["command"]), changes)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def history_path(configuration: Configuration) -> str | None:
    """Return the path of the history's file: beside the pidfile, else beside the configuration file."""
    beside = configuration.options.pidfile or configuration.path
    return f"{os.path.abspath(beside)}.history" if beside else None


def read_history(path: str | None) -> History:
    """Read the file at ``path``; without one, the history is empty. Raises OSError and ValueError."""
    empty = History(path)
    if path is None:
        return empty
    try:
        with open(path, "rb") as opened:
            data = opened.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        return empty
    if len(data) > _LARGEST_FILE:
        raise ValueError(f"found more than {_LARGEST_FILE} bytes, expected a history")
    return empty.decoded(data)


def values_of(configuration: Configuration) -> dict[str, str]:
    """Return the texts of all values that can change while a cluster runs, by their names."""
    return {name: text for name, text in texts(configuration).items() if _can_change(name)}


def _can_change(name: str) -> bool:
    header, key = divided(name)
    section = section_of(header)
    return section is not None and section.option(key).effect is not Effect.RESTART


def changes_between(before: Mapping[str, str], after: Mapping[str, str]) -> Changes:
    """Return what differs."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: (before.get(name), after.get(name)) for name in names}
