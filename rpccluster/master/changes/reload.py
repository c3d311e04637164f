"""`reload`, HUP and `config set`: what has changed is applied, and a new configuration proves itself before it counts.

Leads a change from stage to stage (`change`), commits it or gives it up; the policy decides which processes to replace,
and when. A fault at any step leaves the cluster as it was.

1. A reload reads the sources again; a command changes values of the configuration in force. Either is checked, and new
   listeners and log files are opened. Any error is logged, and everything that was opened is closed. `plan` says what
   is to change; a reload that only asks for it ends here.
2. If values of ``[settings]`` have changed, all processes that read them vote (`pushing`).
3. If workers are to be replaced, since an option of theirs has changed or all are to be, the result is *staged*, and no
   slot pauses any more. The policy starts one worker with it, beside the worker of slot 0. If no worker serves, or none
   is to be replaced, there is nothing to protect. If that worker cannot boot, the staged configuration is dropped.
   Another reload drops it, too, and kills that worker.
4. New values are written to the file, if a command wants that, and the new version to the history, by another process
   (`saving`). If the file cannot be written, nothing changes; without its history the version counts all the same.
5. It is *committed*, under the next version's number: all processes are told settings and live options; listeners that
   are not named any more are closed, those that stay get the new backlog, mode and keep-alive, and plugins come, go and
   change (`regrouping`). If workers are to be replaced, the generation grows by one, and the policy replaces older ones
   one by one; if a successor cannot boot, the rest stay as they are.
6. A plugin that is new or has changed and does not get ready stays, and waits for its next start; the reload names it.

A connection that waits in the backlog of a closed listener when the last worker closes its copy is reset.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from rpccluster import config
from rpccluster.config import Configuration
from rpccluster.config.changes.writing import Rewriting
from rpccluster.errors import StartError
from rpccluster.failure import error_text
from rpccluster.ipc.messages import Accept
from rpccluster.log import logger
from rpccluster.master.changes.change import Change, Stage, changes_of, close_opened, opened
from rpccluster.master.changes.committing import Committing
from rpccluster.master.changes.plan import Plan, make_plan
from rpccluster.master.changes.pushing import Pushing
from rpccluster.master.changes.saving import Saver, recording, rewritten
from rpccluster.master.children.child import Child
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.history import Author, History, Version, values_of
from rpccluster.master.kinds.groups import Groups
from rpccluster.system import System

__all__ = ["RELOAD", "Reloading"]

#: The author of a reload that nobody known has asked for.
RELOAD = Author("reload")


class Reloading:
    """The changes of one cluster's configuration, one at a time.

    ``failure`` says why the last reload failed, ``fault`` which change failed last, and why; each is empty if the last
    one went well. ``begun`` counts the changes that have begun, and the reloads that were refused.
    """

    def __init__(
        self,
        operating_system: System,
        cluster: Cluster,
        workers: Group,
        groups: Groups,
        roster: Roster,
        prepared: Callable[[], AbstractContextManager[None]],
        saving: Saver,
    ) -> None:
        """It enters ``prepared`` while it opens files and sockets; ``saving`` writes them."""
        self._system = operating_system
        self._cluster = cluster
        self._workers = workers
        self._groups = groups
        self._roster = roster
        self._prepared = prepared
        self._saving = saving
        self.pushing = Pushing(cluster, groups, roster, operating_system.monotonic)
        self._committing = Committing(operating_system, cluster, workers, groups, self.pushing)
        self._change: Change | None = None  # under way
        self._queued: tuple[bool, Author] | None = None  # a reload that waits, and whether it is of all
        self._plan: Plan | None = None  # of the last reload whose configuration had no fault
        self._reloads = False  # a reload has begun, and has neither succeeded nor failed
        self.failure = self.fault = ""
        self.begun = 0

    @property
    def is_under_way(self) -> bool:
        """Return whether a change has yet to succeed or fail."""
        return self._change is not None or self._reloads

    @property
    def is_complete(self) -> bool:
        """Whether there is no reload that has yet to succeed or fail."""
        return not self._reloads

    @property
    def is_staged(self) -> bool:
        """Whether a change is not in force yet, or not in every process."""
        is_open = self._change is not None and not self._change.is_committed
        return is_open or self._queued is not None or self.pushing.is_under_way

    def preview(self, *, is_all: bool) -> dict[str, Any]:
        """Tell what a reload would do, in the form of `outcome`, and do nothing. Raises `StartError`."""
        changed = config.reload(self._cluster.configuration, config.Machine())
        plan = make_plan(self._cluster.configuration, changed, self._groups.all, is_all=is_all)
        return {"generation": self._cluster.generation, "plan": plan.told()}

    def outcome(self) -> dict[str, Any]:
        """Tell what the last reload has done that went well, as ``reload`` answers it."""
        assert self._plan is not None
        return {"generation": self._cluster.generation, "plan": self._plan.told()}

    # -- the begin of a change

    def begin(self, *, is_all: bool, author: Author = RELOAD) -> None:
        """Read the configuration again and bring it into force; the first worker of an earlier staged one is killed.

        With ``is_all`` all workers are replaced, else those whose options have changed.
        """
        self.begun += 1
        self._reloads = True
        self._queued = (is_all or bool(self._queued and self._queued[0]), author)
        self._begin_queued()

    def _begin_queued(self) -> None:
        """Begin the reload that waits, unless the change under way must not be overtaken."""
        change = self._change
        if self._queued is None or (change is not None and change.must_not_be_overtaken):
            return
        (is_all, author), self._queued = self._queued, None
        candidate = self._workers.candidate()
        if change is not None:
            self._drop(change, "overtaken by another reload")
        self._reloads = True
        self._reload(is_all, author)
        if candidate is not None:
            self._roster.kill(candidate, "overtaken by another reload")

    def _reload(self, is_all: bool, author: Author) -> None:
        try:
            with self._prepared():
                changed = config.reload(self._cluster.configuration, config.Machine())
                plan = make_plan(self._cluster.configuration, changed, self._groups.all, is_all=is_all)
                staged = opened(self._cluster, changed, plan, is_reload=True)
        except StartError as error:
            self._fail_reload(str(error))
            return
        except Exception as error:  # whatever was raised, the cluster goes on as it was
            self._fail_reload(error_text(error))
            return
        self._plan = plan
        self._start(Change(changed, plan, author, staged, is_reload=True))

    def change(
        self,
        changed: Configuration,
        options: Collection[tuple[str, str]],
        author: Author,
        rewriting: Rewriting | None = None,
    ) -> Change:
        """Bring ``changed`` into force, which differs from the present one in ``options``: headers and keys.

        No other change is under way. ``rewriting`` changes the file. Raises `StartError`, and changes nothing then.
        """
        plan = make_plan(self._cluster.configuration, changed, self._groups.all, only=options)
        with self._prepared():
            staged = opened(self._cluster, changed, plan, is_reload=False)
        self.begun += 1
        change = Change(changed, plan, author, staged, rewriting)
        self._start(change)
        return change

    # -- from stage to stage

    def _start(self, change: Change) -> None:
        self._change = change
        if change.is_reload or change.plan.moves_workers:
            self._workers.forgive(self._system.monotonic())  # the cause of their deaths may be mended now
        if change.plan.pushes:
            self.pushing.begin(change.staged.settings)
        self._groups.wake()
        self.note_progress()

    def note_progress(self) -> None:
        """Lead the change on as far as it goes now; called in every turn of the loop."""
        workers = self._workers
        if workers.is_rolling and workers.has_rolled():
            workers.is_rolling = False
        self._begin_queued()
        change = self._change
        if change is not None:
            self._LEAD[change.stage](self, change)

    def _lead_vote(self, change: Change) -> None:
        if change.plan.pushes and self.pushing.is_under_way:
            return
        if change.plan.pushes and self.pushing.failure:
            self._fail(change, self.pushing.failure)
        elif change.plan.replaces_workers and self._cluster.phase.allows.wants_children and self._workers.ready():
            change.step(Stage.PROVING)
            self._cluster.staged = change.staged
            self._groups.wake()
        else:  # no worker serves, so there is nothing to protect; or none is replaced
            self._write(change)

    def note_proved(self, worker: Child) -> None:
        """Note that the first worker of the staged configuration is ready."""
        change = self._change
        if change is not None and change.stage is Stage.PROVING:
            change.candidate = worker
            self._write(change)

    def _write(self, change: Change) -> None:
        change.step(Stage.WRITING)
        if change.rewriting is not None:
            self._saving.begin(rewritten(change.rewriting))
        self._lead_writing(change)

    def _lead_writing(self, change: Change) -> None:
        if self._saving.is_under_way:
            return
        if change.rewriting is not None and self._saving.failure:
            self._fail(change, self._saving.failure)
            return
        change.step(Stage.RECORDING)
        if change.plan.changes_anything:
            change.history = self._recorded(change)
            if change.history.path is not None:
                self._saving.begin(recording(change.history))
        self._lead_recording(change)

    def _recorded(self, change: Change) -> History:
        cluster = self._cluster
        time = self._system.utc().isoformat(timespec="seconds").replace("+00:00", "Z")
        changes = changes_of(change.plan, cluster.configuration, change.target)
        version = Version(change.staged.settings_version, time, change.author.uid, change.author.command, changes)
        return cluster.history.with_version(version, values_of(change.target))

    def _lead_recording(self, change: Change) -> None:
        if self._saving.is_under_way:
            return
        if change.history is not None and change.history.path is not None and self._saving.failure:
            logger.warning("The history lacks version %d: %s", change.history.number, self._saving.failure)
        change.step(Stage.SETTLING)
        self._cluster.staged = None
        self._committing.commit(change, self._system.monotonic())
        worker = change.candidate
        if worker is not None and self._cluster.phase.allows.children_accept and worker.is_holding:
            self._roster.say(worker, Accept())
        self._groups.wake()

    def _lead_settling(self, change: Change) -> None:
        """End the change when the last process that is replaced has a successor, and each plugin is ready or waits."""
        is_rolling = self._workers.is_rolling and (change.is_reload or change.plan.moves_workers)
        if is_rolling or self.pushing.is_under_way or self._committing.is_under_way():
            return
        failure = self._committing.finish()
        if failure:
            logger.error("%s: %s; the rest is done", change.name, failure)
        self._end(change, failure)

    _LEAD: ClassVar[dict[Stage, Callable[[Reloading, Change], None]]] = {
        Stage.VOTING: _lead_vote,
        Stage.PROVING: lambda self, change: None,
        Stage.WRITING: _lead_writing,
        Stage.RECORDING: _lead_recording,
        Stage.SETTLING: _lead_settling,
    }

    # -- its end

    def note_failed_boot(self, worker: Child, reason: str) -> None:
        """Note that a worker died before it was ready; if it was the change's first, the other workers stay."""
        workers, change = self._workers, self._change
        if workers.is_candidate(worker):
            if change is not None:
                self._fail(change, f"its first worker could not boot: {reason}")
        elif workers.is_rolling and worker.generation == workers.generation:
            if any(other.slot == worker.slot for other in workers.ready()):
                workers.is_rolling = False
                self._fail_late(f"a successor could not boot, the other workers stay as they are: {reason}")
            elif change is not None and change.is_committed and (change.is_reload or change.plan.moves_workers):
                self._fail_late(f"a worker could not boot: {reason}")

    def refuse(self, reason: str) -> None:
        """Log that the reload is refused for ``reason``."""
        self.begun += 1
        self._fail_reload(reason)

    def give_up(self, reason: str) -> None:
        """End what is under way, for ``reason``; the first worker of a staged configuration is killed."""
        change, candidate = self._change, self._workers.candidate()
        if change is None and self._queued is None:
            return
        self._queued = None
        self._workers.is_rolling = False
        if change is not None and change.is_committed and not change.is_reload:
            self._end(change, "")
        elif change is not None:
            self._fail(change, reason)
        if self._reloads:
            self._fail_reload(reason)
        if candidate is not None:  # workers may be wanted again at once: it must not be one of them
            self._roster.kill(candidate, "its reload was given up")

    def _drop(self, change: Change, reason: str) -> None:
        """Let another change overtake this one."""
        if change.is_committed:
            self._end(change, "")
            return
        self._undo(change)
        self._end(change, reason)

    def _undo(self, change: Change) -> None:
        if change.stage is Stage.VOTING:
            self.pushing.drop()
        self._cluster.staged = None
        close_opened(self._cluster, change.staged)

    def _fail(self, change: Change, reason: str) -> None:
        """End a change that does not come into force, or not in all processes."""
        if not change.is_committed:
            self._undo(change)
            if change.candidate is not None:
                self._roster.kill(change.candidate, "what it has proved could not be written")
        self._end(change, reason)
        _log(change.name, reason)

    def _fail_late(self, reason: str) -> None:
        """Fail the change in force, not the one that has overtaken it and has yet to prove itself."""
        if self._change is not None and not self._change.is_committed:
            logger.error("Reload failed: %s", reason)
        elif self._change is not None:
            self._fail(self._change, reason)
        else:
            self._fail_reload(reason)

    def _fail_reload(self, reason: str) -> None:
        self._reloads, self.failure = self._queued is not None, reason
        self.fault = f"Reload failed: {reason}"
        _log("Reload", reason)

    def _end(self, change: Change, failure: str) -> None:
        change.is_done, change.failure = True, failure
        self._change, self.fault = None, f"{change.name} failed: {failure}" if failure else ""
        if change.is_reload:
            self._reloads, self.failure = self._queued is not None, failure


def _log(what: str, reason: str) -> None:
    for line in reason.splitlines():
        logger.error("%s failed: %s", what, line)
