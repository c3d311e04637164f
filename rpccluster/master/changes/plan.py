"""What a reload would do: which groups come, go or change, what is applied live, and how many processes stay. Pure.

A process is replaced only if an option of its own section has changed that it has from its start (`Effect.PROCESSES`);
all else is applied live (`Effect.NOW`): the master uses it alone, or tells the running processes. What a plugin has
from ``[cluster]`` is fixed when its process starts, so a change there replaces the workers alone. Runs in the master.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from rpccluster.config import Configuration, Effect, Option
from rpccluster.config.origin import BUILT_IN, COMMAND_LINE, COMMANDED, ENVIRONMENT
from rpccluster.config.sections.settings import SETTINGS
from rpccluster.config.sections.web import METRICS, WEB
from rpccluster.master.children.group import Group

__all__ = ["WORKERS", "Edit", "Plan", "make_plan"]

WORKERS = "workers"

_CLUSTER = "cluster"
_GROUPS = {_CLUSTER: WORKERS, METRICS.name: WEB.name}  # of sections that do not bear its name
_NUMBERS = ("number_workers", "processes")  # the options that say how many processes there are
_SOURCES = {BUILT_IN.rank: "default", 1: "file", ENVIRONMENT.rank: str(ENVIRONMENT), COMMAND_LINE.rank: "flag"}


class Edit(NamedTuple):
    """Another value of an option; ``old`` and ``new`` are texts as a file has them.

    ``source`` says where the new value comes from, if the old one was set by a command and is lost; else it is empty.
    """

    header: str
    key: str
    old: str
    new: str
    source: str = ""

    @property
    def name(self) -> str:
        """The option among those of all sections."""
        return self.key if self.header == _CLUSTER else f"{self.header}.{self.key}"

    @property
    def change(self) -> str:
        """The two values, in words."""
        old, new = self.old or "nothing", self.new or "nothing"
        return f"{old} (set) -> {new} ({self.source})" if self.source else f"{old} -> {new}"


@dataclass(frozen=True)
class Plan:
    """What a reload does. Groups are told by their names.

    ``replaced`` are the groups whose processes are replaced; ``edits`` are the options that change, of these and of
    others, where they apply live. ``kept`` is the number of processes that stay.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    replaced: tuple[str, ...]
    edits: tuple[Edit, ...]
    kept: int

    @property
    def replaces_workers(self) -> bool:
        """Return whether the workers are replaced one after another."""
        return WORKERS in self.replaced

    @property
    def pushes(self) -> bool:
        """Return whether values of ``[settings]`` change."""
        return any(edit.header == SETTINGS.name for edit in self.edits)

    @property
    def changes_anything(self) -> bool:
        """Return whether a value changes, or a section comes or goes."""
        return bool(self.edits or self.added or self.removed)

    @property
    def touches_groups(self) -> bool:
        """Return whether more changes than values of ``[settings]``."""
        is_beyond = any(edit.header != SETTINGS.name for edit in self.edits)
        return bool(is_beyond or self.added or self.removed or self.replaced)

    @property
    def moves_workers(self) -> bool:
        """Return whether workers are replaced, or others than now are wanted."""
        return self.replaces_workers or self.edits_key(_CLUSTER, _NUMBERS[0])

    def edits_key(self, header: str, key: str) -> bool:
        """Return whether the option ``key`` of the section ``header`` changes."""
        return any((edit.header, edit.key) == (header, key) for edit in self.edits)

    def told(self) -> dict[str, Any]:
        """Return this plan as ``reload`` answers it."""
        changed: dict[str, dict[str, list[str]]] = {group: {} for group in self.replaced}
        live: dict[str, list[str]] = {}
        for edit in self.edits:
            edits = changed.get(_group_of(edit.header))
            if edits is not None:
                edits[edit.key] = [edit.old, edit.new]
            else:
                live[edit.name] = [edit.old, edit.new]
        groups = {"added": list(self.added), "removed": list(self.removed), "changed": changed}
        return {**groups, "live": live, "kept": self.kept, "lines": list(self.lines())}

    def lines(self) -> Iterator[str]:
        """Yield a line for each group that comes, goes or changes, for what is applied live, and for what stays."""
        yield from (f"added: {group}" for group in self.added)
        yield from (f"removed: {group}" for group in self.removed)
        for group in self.replaced:
            edits = [edit for edit in self.edits if _group_of(edit.header) == group]
            yield ", ".join([f"changed: {group}", *(f"{edit.key}: {edit.change}" for edit in edits)])
        for edit in self.edits:
            if _group_of(edit.header) not in self.replaced:
                yield f"applied live: {edit.name}: {edit.change}"
        yield f"kept: {self.kept} process{'' if self.kept == 1 else 'es'}"


def make_plan(
    running: Configuration,
    changed: Configuration,
    groups: Iterable[Group],
    *,
    is_all: bool = False,
    only: Collection[tuple[str, str]] | None = None,
) -> Plan:
    """Plan the way from ``running``, with ``groups``, to ``changed``.

    With ``is_all`` all workers and task processes are replaced.
    ``only`` are the options, by header and key, that a command changes; a reload may change any.
    """
    present = {group.name: group for group in groups if not group.is_removed}
    before, after = running.sections(), changed.sections()
    edits = [each for each in _edits(running, changed, present) if only is None or _place(each[0]) in only]
    replaced = {_group_of(edit.header) for edit, effect in edits if effect is Effect.PROCESSES}
    if only is None:
        same = before.keys() & after.keys()
        replaced |= {_group_of(header) for header in same if _differ(before[header], after[header])}
        replaced |= {WORKERS} if is_all or _is_mixed(present.get(WORKERS)) else set()
        replaced |= {name for name, group in present.items() if is_all and group.runs_the_service}
    return Plan(
        added=tuple(header for header in after if header not in before),
        removed=tuple(header for header in before if header not in after),
        replaced=tuple(name for name in present if name in replaced),
        edits=tuple(edit for edit, _ in edits),
        kept=sum(_staying(group, after) for name, group in present.items() if name not in replaced),
    )


def _group_of(header: str) -> str:
    return _GROUPS.get(header, header)


def _is_mixed(group: Group | None) -> bool:
    """Return whether an earlier reload has left processes of an older generation; those that end are none."""
    return group is not None and any(
        child.is_holding and child.generation < group.generation for child in group.children
    )


def _staying(group: Group, sections: Mapping[str, Any]) -> int:
    """Return how many processes of ``group`` ``sections`` still want."""
    section = sections.get(_CLUSTER if group.name == WORKERS else group.name)
    wanted = 0 if section is None else next((getattr(section, key) for key in _NUMBERS if hasattr(section, key)), 1)
    return sum(child.is_holding and child.slot < wanted for child in group.children)


def _differ(before: Any, after: Any) -> bool:
    """Return whether two sections differ in what no option sets."""
    return any(getattr(before, each.name) != getattr(after, each.name) for each in fields(before) if not each.metadata)


def _edits(
    running: Configuration, changed: Configuration, present: Mapping[str, Group]
) -> Iterator[tuple[Edit, Effect]]:
    """Yield the options that change in sections that stay. A group knows itself how many processes it has now."""
    before, after = _values(running), _values(changed)
    headers = running.sections().keys() & changed.sections().keys()
    for place in (place for place in {**before, **after} if place[0] in headers):
        header, key = place
        option, _ = after.get(place) or before[place]
        old, new = (values[place][1] if place in values else None for values in (before, after))
        group = present.get(_group_of(header))
        if key in _NUMBERS and group is not None:
            old = group.wanted
        if old != new:
            is_lost = running.origin(key, header) is COMMANDED and changed.origin(key, header) is not COMMANDED
            source = _SOURCES[changed.origin(key, header).rank] if is_lost else ""
            texts = _text(option, old), _text(option, new)
            if texts[0] == texts[1]:  # a file whose content counts
                texts = texts[0], f"{texts[1]} (its content has changed)"
            yield Edit(header, key, *texts, source), option.effect


def _place(edit: Edit) -> tuple[str, str]:
    return edit.header, edit.key


def _values(configuration: Configuration) -> dict[tuple[str, str], tuple[Option, Any]]:
    return {(header, key): (option, value) for header, key, option, value in configuration.every_option()}


def _text(option: Option, value: Any) -> str:
    return "" if value is None else option.type.write(value)
