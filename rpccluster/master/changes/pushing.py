"""A change of the settings: a vote of all processes that read them, then a switch of all. Runs in the master.

1. The new values are proposed to every *voter*: workers and function plugins that are ready and need not end.
2. One refusal, one end, or silence beyond ``settings_timeout`` leaves everything as it was, and names process and keys.
   A function plugin that has given up its channel, as one does that becomes another program, has no vote any more.
3. When all have agreed, the values are written to the file, if that is wanted; if it cannot be written, nothing
   changes. Then the version is committed, and all are told to switch: also who is booting or retiring; a command gets
   its ``reload_signal``. What boots later is born with it. The push is over when all voters have switched; it does not
   wait longer than for votes.

A reload reads the file, so one that has begun meanwhile ends the vote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from rpccluster.config import Configuration
from rpccluster.config.declared import with_places
from rpccluster.config.origin import Origin
from rpccluster.config.writing import Rewriting
from rpccluster.ipc.messages import Propose, Switch, Vote
from rpccluster.log import logger
from rpccluster.master.children.child import Child, ChildState
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.groups import Groups
from rpccluster.system.replacing import replace_content

__all__ = ["Pushing"]

UNHEARD_SECONDS = 1.0  # after the end of its channel, in which a process ends that does end

_NEVER = float("inf")
_NO_PLACES: Mapping[str, Origin] = {}


class Pushing:
    """The pushes of one cluster. ``failure`` says why the last one failed; it is empty if that went well."""

    def __init__(self, cluster: Cluster, groups: Groups, roster: Roster, clock: Callable[[], float]) -> None:
        """``clock`` returns monotonic seconds."""
        self._cluster = cluster
        self._groups = groups
        self._roster = roster
        self._clock = clock
        self._attempt = 0
        self._base: Configuration | None = None  # in force when the vote began
        self._new: Configuration | None = None
        self._rewriting: Rewriting | None = None
        self._waiting: dict[Child, Group] = {}  # voters that have not voted, or have not switched
        self._unheard: dict[Child, float] = {}  # those whose channel has ended, and until when their own end may follow
        self._give_up_at = _NEVER
        self._is_committed = False
        self.failure = ""
        self.wake_at = _NEVER

    @property
    def is_under_way(self) -> bool:
        """Whether a process has yet to vote, or to switch."""
        return self._new is not None

    def begin(
        self, texts: Mapping[str, str], rewriting: Rewriting | None = None, places: Mapping[str, Origin] = _NO_PLACES
    ) -> None:
        """Propose ``texts``, which are all settings by their keys; ``rewriting`` changes the file.

        ``places`` are those in files.
        """
        self._attempt += 1
        self._base, self._rewriting = self._cluster.configuration, rewriting
        self._new = self._base.with_settings(texts, rewriting.places if rewriting else places)
        if rewriting is not None:
            self._new = self._new.with_content(rewriting.path, rewriting.new)
        given = self._new.settings(self._cluster.settings_version + 1)
        self._waiting = {child: group for group, child in self._readers() if child.state is ChildState.READY}
        self.wake_at = self._give_up_at = self._clock() + self._cluster.options.settings_timeout
        for child in self._waiting:
            self._roster.say(child, Propose(self._attempt, given.number, dict(given.texts), dict(given.places)))
        self._go_on()

    def _readers(self) -> Iterator[tuple[Group, Child]]:
        for group in self._groups.all:
            yield from ((group, child) for child in group.children if child.reads_settings)

    def note_vote(self, child: Child, vote: Vote) -> None:
        """Note the vote of ``child``."""
        if vote.attempt != self._attempt or child not in self._waiting or self._is_committed:
            return
        group = self._waiting.pop(child)
        if vote.refusal:
            self._fail(f"{_name(group, child)} refuses: {vote.refusal}")
        else:
            self._go_on()

    def note_end(self, child: Child) -> None:
        """Note that ``child`` has ended; a check may have ended it."""
        if self._is_committed:
            self.note_switched(child)
        elif child in self._waiting:
            self._fail(f"{_name(self._waiting[child], child)} ended before it had voted on {self._keys()}")

    def note_switched(self, child: Child) -> None:
        """Note that the version is in force in ``child``, or that it has ended."""
        if self._is_committed and self._waiting.pop(child, None) is not None:
            self._go_on()

    def turn(self) -> None:
        """End a push that lasts too long, or go on without processes that cannot be heard."""
        now = self._clock()
        self._leave_out_unheard(now)
        if now < self._give_up_at:
            return
        silent = ", ".join(_name(group, child) for child, group in self._waiting.items())
        if self._is_committed:
            logger.warning("Settings: not yet switched: %s", silent)
            self._finish("")
        else:
            seconds = self._cluster.options.settings_timeout
            self._fail(f"no vote within settings_timeout ({seconds:g} s) from {silent}, on {self._keys()}")

    def _leave_out_unheard(self, now: float) -> None:
        unheard = [child for child in self._waiting if not child.reads_settings]
        gone = [child for child in unheard if now >= self._unheard.setdefault(child, now + UNHEARD_SECONDS)]
        self.wake_at = min([self._give_up_at, *(self._unheard[child] for child in unheard)])
        for child in gone:
            del self._waiting[child]
        if gone:
            self._go_on()

    def _keys(self) -> str:
        assert self._base is not None
        assert self._new is not None
        old, new = self._base.settings(0), self._new.settings(0)
        changed = [key for key in {**old.texts, **new.texts} if old.texts.get(key) != new.texts.get(key)]
        return with_places(changed, new.places)

    def _go_on(self) -> None:
        """Commit when all have voted; finish when all have switched."""
        if self._waiting:
            return
        if self._is_committed:
            self._finish("")
        else:
            self._commit()

    def _commit(self) -> None:
        """Put the new version in force, unless a reload has begun."""
        cluster, new = self._cluster, self._new
        assert new is not None
        if cluster.configuration is not self._base or cluster.staged is not None:
            self._fail("overtaken by a reload")
            return
        if self._rewriting is not None and (problem := _write(self._rewriting)):
            self._fail(problem)
            return
        cluster.configuration, cluster.settings_version = new, cluster.settings_version + 1
        given = cluster.settings
        message = Switch(given.number, dict(given.texts), dict(given.places))
        self._is_committed = True
        self.wake_at = self._give_up_at = self._clock() + cluster.options.settings_timeout
        self._waiting = {child: group for group, child in self._readers() if child.state is ChildState.READY}
        for _, child in self._readers():
            self._roster.say(child, message)
        self._roster.tell_of_settings()
        logger.info("Settings: version %d", given.number)
        self._go_on()

    def _fail(self, reason: str) -> None:
        logger.error("Settings stay at version %d: %s", self._cluster.settings_version, reason)
        self._finish(reason)

    def _finish(self, failure: str) -> None:
        self.failure, self._is_committed = failure, False
        self._new, self._base, self._waiting, self._unheard = None, None, {}, {}
        self.wake_at = self._give_up_at = _NEVER


def _write(rewriting: Rewriting) -> str:
    """Write the file. Returns why that failed; empty if it went well."""
    try:
        replace_content(rewriting.path, rewriting.old, rewriting.new)
    except OSError as error:
        return f"cannot write {rewriting.path}: {error.strerror}"
    return ""


def _name(group: Group, child: Child) -> str:
    return f"{group.noun} (pid: {child.pid}, slot: {child.slot})"
