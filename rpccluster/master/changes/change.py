"""One change of the configuration on its way: from its plan to the last process that has it. Data; runs in the master.

`rpccluster.master.changes.reload` leads it from stage to stage.
"""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass

from rpccluster.config import Configuration
from rpccluster.config.accounts import identity_of
from rpccluster.config.changes.changing import texts
from rpccluster.config.changes.writing import Rewriting
from rpccluster.master.changes.plan import Plan
from rpccluster.master.children.child import Child
from rpccluster.master.cluster import Cluster, Staged, is_led_whole
from rpccluster.master.history import Author, Changes, History
from rpccluster.master.resources.listeners import Listener, close_listeners, open_listeners
from rpccluster.master.resources.logs import are_alike, open_logs
from rpccluster.master.resources.plugin_listeners import missing, open_plugin_listeners

__all__ = ["Change", "Stage", "changes_of", "close_opened", "opened"]


class Stage(enum.Enum):
    """The stages of a change, in order; it may skip some, and may fail in each before `SETTLING`."""

    VOTING = "processes vote on new settings"
    PROVING = "a first worker boots with the new configuration"
    WRITING = "new values are written to their file"
    RECORDING = "the version is written to the history"
    SETTLING = "it is in force, and processes switch or are replaced"

    def __lt__(self, other: Stage) -> bool:
        return _ORDER[self] < _ORDER[other]


_ORDER = {stage: number for number, stage in enumerate(Stage)}


@dataclass(eq=False)
class Change:
    """A change that is under way, or has ended.

    ``staged`` has what it has opened. ``candidate`` is the first worker, once it is ready. ``history`` has the new
    version. ``failure`` says why it has failed.
    """

    target: Configuration
    plan: Plan
    author: Author
    staged: Staged
    rewriting: Rewriting | None = None
    is_reload: bool = False
    stage: Stage = Stage.VOTING
    candidate: Child | None = None
    history: History | None = None
    failure: str = ""
    is_done: bool = False

    @property
    def name(self) -> str:
        """What the log calls it."""
        return "Reload" if self.is_reload else self.author.command

    @property
    def is_beyond_settings(self) -> bool:
        """Whether more may change than values of ``[settings]``."""
        return self.is_reload or self.plan.touches_groups

    @property
    def is_committed(self) -> bool:
        """Whether it is in force."""
        return self.stage is Stage.SETTLING

    @property
    def must_not_be_overtaken(self) -> bool:
        """Whether a reload waits for it: a file is being written, or it is a command's and not yet in force."""
        return not self.is_committed and (not self.is_reload or self.stage in (Stage.WRITING, Stage.RECORDING))

    def step(self, stage: Stage) -> None:
        """Go to a later stage."""
        assert self.stage < stage, (self.stage, stage)
        self.stage = stage


def changes_of(plan: Plan, before: Configuration, after: Configuration) -> Changes:
    """Return the values that ``plan`` changes, which leads from ``before`` to ``after``."""
    old, new = texts(before), texts(after)
    return {
        edit.name: (edit.old if edit.name in old else None, edit.new if edit.name in new else None)
        for edit in plan.edits
    }


def opened(cluster: Cluster, target: Configuration, plan: Plan, *, is_reload: bool) -> Staged:
    """Open the listeners and logs of ``target`` that ``cluster`` has not. Raises `StartError`, and leaves none open."""
    generation = cluster.generation + plan.replaces_workers
    version = cluster.settings_version + plan.changes_anything
    if not (is_reload or plan.touches_groups):
        present = (list(cluster.listeners), cluster.logs, dict(cluster.plugin_listeners))
        return Staged(target, generation, *present, version)
    options = target.options
    owner = identity_of(options.user, options.group)
    listeners: list[Listener] = []
    if not (is_led_whole(target) and cluster.unled):
        listeners = open_listeners(options, owner, cluster.listeners, target.fault, cluster.activation)
    with contextlib.ExitStack() as undo:
        new = [each for each in listeners if each not in cluster.listeners]
        undo.callback(close_listeners, new, is_last=True)
        of_plugins = open_plugin_listeners(target, cluster.plugin_listeners)
        undo.callback(close_listeners, missing(of_plugins, cluster.plugin_listeners), is_last=True)
        logs = cluster.logs if are_alike(options, cluster.options) else open_logs(options)
        undo.pop_all()
    return Staged(target, generation, listeners, logs, of_plugins, version)


def close_opened(cluster: Cluster, staged: Staged) -> None:
    """Close what was opened for ``staged`` alone."""
    close_listeners([each for each in staged.listeners if each not in cluster.listeners], is_last=True)
    close_listeners(missing(staged.plugin_listeners, cluster.plugin_listeners), is_last=True)
    if staged.logs is not cluster.logs:
        staged.logs.close()
