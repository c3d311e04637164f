"""`reload` and HUP: what has changed is applied, and a new configuration proves itself in one worker before it counts.

Stages, commits and gives up; the policy decides which processes to replace, and when. A fault at any step leaves the
cluster as it was.

1. If values of ``[settings]`` have changed, they are pushed (`pushing`), and no process is replaced for them. One that
   refuses them ends the reload.
2. The sources are read again and checked, and new listeners and log files are opened. Any error is logged, and
   everything that was opened is closed. `plan` says what is to change; a reload that only asks for it ends here.
3. If workers are to be replaced, since an option of theirs has changed or all are to be, the result is *staged*, and no
   slot pauses any more. The policy starts one worker with it, beside the worker of slot 0. If no worker serves, or none
   is to be replaced, there is nothing to protect, and the commit follows at once.
4. If that worker cannot boot, the staged configuration is dropped. Another reload drops it, too, and kills that worker.
5. If it gets ready, the configuration is *committed*: listeners that are not named any more are closed, those that stay
   get the new backlog, mode and keep-alive, and plugins come, go and change (`regrouping`). If workers are to be
   replaced, the generation grows by one, and the policy replaces older ones one by one; if a successor cannot boot, the
   rest stay as they are.
6. A plugin that is new or has changed and does not get ready stays, and waits for its next start; the reload names it.

A connection that waits in the backlog of a closed listener when the last worker closes its copy is reset.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from rpccluster import config
from rpccluster.config.accounts import identity_of
from rpccluster.config.sections.settings import SETTINGS
from rpccluster.errors import StartError
from rpccluster.failure import error_text
from rpccluster.log import LogFiles, logger, set_up_logging
from rpccluster.master.changes.plan import Edit, Plan, make_plan
from rpccluster.master.changes.pushing import Pushing
from rpccluster.master.changes.regrouping import Regrouping
from rpccluster.master.children.child import Child
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster, Staged
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.phases import Event
from rpccluster.master.resources.listeners import apply_options, close_listeners, open_listeners
from rpccluster.master.resources.logs import are_alike, open_logs
from rpccluster.master.resources.plugin_listeners import missing, open_plugin_listeners
from rpccluster.master.resources.service_listeners import tell_children
from rpccluster.system import System

__all__ = ["Reloading"]


class Reloading:
    """The reloads of one cluster. ``failure`` says why the last one failed; it is empty if that went well."""

    def __init__(
        self,
        operating_system: System,
        cluster: Cluster,
        workers: Group,
        groups: Groups,
        roster: Roster,
        prepared: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """A reload enters ``prepared`` while it opens files and sockets."""
        self._system = operating_system
        self._cluster = cluster
        self._workers = workers
        self._groups = groups
        self._roster = roster
        self._prepared = prepared
        self._regrouping = Regrouping(cluster, groups)
        self.pushing = Pushing(cluster, groups, roster, operating_system.monotonic)
        self._queued: bool | None = None  # a reload that waits for a push; whether it is of all
        self._is_pushed = False  # that reload has pushed its settings, if they have changed
        self._pushed: tuple[Edit, ...] = ()
        self._is_under_way = False
        self._plan: Plan | None = None  # of the last reload whose configuration had no fault
        self.failure = ""
        self.asked = 0  # reloads that have begun, or were refused

    @property
    def is_under_way(self) -> bool:
        """Return whether a reload has yet to succeed or fail."""
        return self._is_under_way

    @property
    def is_complete(self) -> bool:
        """Whether there is no reload that has yet to succeed or fail."""
        return not self._is_under_way

    @property
    def is_staged(self) -> bool:
        """Whether a staged configuration has not proved itself yet, or new settings have not."""
        return self._cluster.staged is not None or self.pushing.is_under_way

    def preview(self, *, is_all: bool) -> dict[str, Any]:
        """Tell what a reload would do, in the form of `outcome`, and do nothing. Raises `StartError`."""
        changed = config.reload(self._cluster.configuration, config.Machine())
        plan = make_plan(self._cluster.configuration, changed, self._groups.all, is_all=is_all)
        return {"generation": self._cluster.generation, "plan": plan.told()}

    def outcome(self) -> dict[str, Any]:
        """Tell what the last reload has done that went well, as ``reload`` answers it."""
        assert self._plan is not None
        return {"generation": self._cluster.generation, "plan": self._plan.told()}

    def begin(self, *, is_all: bool) -> None:
        """Read the configuration again and stage it; the first worker of an earlier staged one is killed.

        With ``is_all`` all workers are replaced, else those whose options have changed.
        """
        self.asked += 1
        self._is_under_way = True
        self._queued, self._is_pushed, self._pushed = is_all or bool(self._queued), False, ()
        overtaken = self._workers.candidate()
        self._unstage()
        self._go_on()
        if overtaken is not None:
            self._roster.kill(overtaken, "overtaken by another reload")

    def _go_on(self) -> None:
        """Push the settings of the reload that waits, then stage the rest, unless a push is under way."""
        if self._queued is None or self.pushing.is_under_way:
            return
        if not self._is_pushed:
            self._is_pushed, self._pushed = True, self._push()
            if self.pushing.is_under_way:
                return
        is_all, self._queued = self._queued, None
        if self._pushed and self.pushing.failure:
            self._fail(self.pushing.failure)
            return
        with self._prepared():
            self._stage(self._system.monotonic(), is_all)
        self._groups.wake()

    def _push(self) -> tuple[Edit, ...]:
        """Begin to push the settings, if the file has other ones. Returns what differs."""
        running = self._cluster.configuration
        try:
            changed = config.reload(running, config.Machine())
        except Exception:  # what follows finds it, too, and tells
            return ()
        texts = changed.settings(0).texts
        if texts == running.settings(0).texts:
            return ()
        edits = make_plan(running, changed, self._groups.all, is_all=False).of_settings
        self.pushing.begin(texts, places={key: changed.origin(key, SETTINGS.name) for key in texts})
        return edits

    def _stage(self, now: float, is_all: bool) -> None:
        """Read the configuration again and stage it for a first worker; a faulty one is logged."""
        cluster = self._cluster
        self._is_under_way = True
        self._unstage()
        try:
            staged = self._read(is_all)
        except StartError as error:
            self._fail(str(error))
            return
        except Exception as error:  # whatever was raised, the cluster goes on as it was
            self._fail(error_text(error))
            return
        cluster.staged = staged
        self._workers.forgive(now)  # the cause of their deaths may be mended now
        may_prove = cluster.phase.allows.wants_children and self._workers.ready()
        if not may_prove or staged.generation == cluster.generation:
            self.commit(now)  # no worker serves, so there is nothing to protect; or none is replaced

    def _read(self, is_all: bool) -> Staged:
        """Read the configuration and open its files. Raises `StartError`, and changes nothing then."""
        cluster = self._cluster
        changed = config.reload(cluster.configuration, config.Machine())
        plan = make_plan(cluster.configuration, changed, self._groups.all, is_all=is_all)
        if plan.of_settings:
            raise StartError("the settings have changed again since they were read")
        options = changed.options
        owner = identity_of(options.user, options.group)
        listeners = open_listeners(options, owner, cluster.listeners, changed.fault, cluster.activation)
        with contextlib.ExitStack() as undo:
            new = [each for each in listeners if each not in cluster.listeners]
            undo.callback(close_listeners, new, is_last=True)
            of_plugins = open_plugin_listeners(changed, cluster.plugin_listeners)
            undo.callback(close_listeners, missing(of_plugins, cluster.plugin_listeners), is_last=True)
            logs = cluster.logs if are_alike(options, cluster.options) else open_logs(options)
            undo.pop_all()
        self._plan = replace(plan, edits=(*self._pushed, *plan.edits))
        generation = cluster.generation + plan.replaces_workers
        return Staged(changed, generation, listeners, logs, of_plugins, cluster.settings_version)

    def refuse(self, reason: str) -> None:
        """Log that the reload is refused for ``reason``."""
        self.asked += 1
        self._fail(reason)

    def give_up(self, reason: str) -> None:
        """End a running reload, for ``reason``; the first worker of a staged configuration is killed."""
        if self._is_under_way:
            candidate = self._workers.candidate()
            self._queued = None
            self._unstage()
            self._workers.is_rolling = False
            self._fail(reason)
            if candidate is not None:  # workers may be wanted again at once: it must not be one of them
                self._roster.kill(candidate, "its reload was given up")

    def commit(self, now: float) -> None:
        """Make the staged configuration the cluster's; the policy then replaces older processes one by one."""
        cluster, staged, plan = self._cluster, self._cluster.staged, self._plan
        assert staged is not None
        assert plan is not None
        close_listeners([each for each in cluster.listeners if each not in staged.listeners], is_last=True)
        apply_options([each for each in cluster.listeners if each in staged.listeners], staged.configuration.options)
        cluster.configuration, cluster.generation = staged.configuration, staged.generation
        cluster.settings_version = staged.settings_version
        cluster.listeners[:] = staged.listeners
        close_listeners(missing(cluster.plugin_listeners, staged.plugin_listeners), is_last=True)
        cluster.plugin_listeners.clear()
        cluster.plugin_listeners.update(staged.plugin_listeners)
        tell_children(cluster.plugin_listeners)
        self._use_logs(staged.logs)
        self._system.set_title(cluster.title)
        cluster.staged = None
        self._workers.wanted = cluster.options.number_workers
        self._workers.after = cluster.options.after
        self._workers.roll(now)
        self._regrouping.begin(plan, staged.configuration, now)
        self._groups.wake()
        cluster.note(Event.WANTED)
        for line in plan.lines():
            logger.info("Reload: %s", line)
        logger.info("Reloaded the configuration (generation %d)", cluster.generation)

    def _use_logs(self, logs: LogFiles) -> None:
        cluster = self._cluster
        if logs is not cluster.logs:
            cluster.logs.close()
            cluster.logs = logs
            if cluster.options.daemonize:
                self._hold_output()
        set_up_logging(logs, cluster.options.log_level)

    def _hold_output(self) -> None:
        try:
            self._cluster.logs.hold_output()
        except OSError as error:  # too late to refuse: they stay as they are
            logger.error("Cannot lead stdout and stderr to the log: %s", error)

    def note_progress(self) -> None:
        """End the reload when the last process that is replaced has a successor, and each plugin is ready or waits."""
        workers = self._workers
        if workers.is_rolling and workers.has_rolled():
            workers.is_rolling = False
        self._go_on()
        is_queued = self._queued is not None
        if (
            self._is_under_way
            and not is_queued
            and not (self.is_staged or workers.is_rolling or self._regrouping.is_under_way())
        ):
            failure = self._regrouping.finish()
            self._is_under_way, self.failure = False, failure
            if failure:
                logger.error("Reload: %s; the rest is done", failure)

    def note_failed_boot(self, worker: Child, reason: str) -> None:
        """Note that a worker died before it was ready; if it was the reload's, the other workers stay."""
        workers = self._workers
        if workers.is_candidate(worker):
            self._unstage()
            self._fail(f"its first worker could not boot: {reason}")
        elif workers.is_rolling and worker.generation == workers.generation:
            if any(other.slot == worker.slot for other in workers.ready()):
                workers.is_rolling = False
                self._fail(f"a successor could not boot, the other workers stay as they are: {reason}")
            elif self._is_under_way:
                self._fail(f"a worker could not boot: {reason}")

    def _unstage(self) -> None:
        cluster, staged = self._cluster, self._cluster.staged
        if staged is not None:
            cluster.staged = None
            close_listeners([each for each in staged.listeners if each not in cluster.listeners], is_last=True)
            close_listeners(missing(staged.plugin_listeners, cluster.plugin_listeners), is_last=True)
            if staged.logs is not cluster.logs:
                staged.logs.close()

    def _fail(self, reason: str) -> None:
        self._is_under_way, self.failure = False, reason
        for line in reason.splitlines():
            logger.error("Reload failed: %s", line)
