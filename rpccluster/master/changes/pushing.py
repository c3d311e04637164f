"""A change of the settings: a vote of all processes that read them, then a switch of all. Runs in the master.

1. The new values are proposed to every *voter*: workers and function plugins that are ready and need not end.
2. One refusal, one end, or silence beyond ``settings_timeout`` ends the vote, and names process and keys. A function
   plugin that has given up its channel, as one does that becomes another program, has no vote any more.
3. When all have agreed, `rpccluster.master.changes.reload` commits the version, and all are told to switch: also who is
   booting or retiring; a command gets its ``reload_signal``. What boots later is born with it. The push is over when
   all that are ready have switched; it does not wait longer than for votes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rpccluster.config.declared import with_places
from rpccluster.ipc.messages import Propose, ReopenLogs, Switch, Vote
from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.live_settings import Given
from rpccluster.log import LogFiles, logger
from rpccluster.master.children.child import Child, ChildState
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.groups import Groups

__all__ = ["Pushing"]

UNHEARD_SECONDS = 1.0  # after the end of its channel, in which a process ends that does end

_NEVER = float("inf")


class Pushing:
    """The votes and switches of one cluster. ``failure`` says why the last vote failed; it is empty if all agreed."""

    def __init__(self, cluster: Cluster, groups: Groups, roster: Roster, clock: Callable[[], float]) -> None:
        """``clock`` returns monotonic seconds."""
        self._cluster = cluster
        self._groups = groups
        self._roster = roster
        self._clock = clock
        self._attempt = 0
        self._waiting: dict[Child, Group] = {}  # voters that have not voted, or have not switched
        self._unheard: dict[Child, float] = {}  # those whose channel has ended, and until when their own end may follow
        self._proposed = cluster.settings
        self._give_up_at = _NEVER
        self._is_switching = False
        self.failure = ""
        self.wake_at = _NEVER

    @property
    def is_under_way(self) -> bool:
        """Whether a process has yet to vote, or to switch."""
        return bool(self._waiting)

    def begin(self, given: Given) -> None:
        """Propose ``given``, the next version, to every voter."""
        self._attempt += 1
        self._proposed, self._is_switching, self.failure = given, False, ""
        self._wait_for_ready()
        for _, child in self._readers():
            child.refusal = ""
        for child in self._waiting:
            self._roster.say(child, Propose(self._attempt, given.number, dict(given.texts), dict(given.places)))

    def _wait_for_ready(self, older_than: float = _NEVER) -> None:
        """Wait for the ready processes; not for those that are born with the version that comes."""
        self._waiting = {
            child: group
            for group, child in self._readers()
            if child.state is ChildState.READY and child.row[CommonCell.SETTINGS_VERSION] < older_than
        }
        until = self._clock() + self._cluster.options.settings_timeout if self._waiting else _NEVER
        self.wake_at = self._give_up_at = until
        self._unheard = {}

    def _readers(self) -> Iterator[tuple[Group, Child]]:
        for group in self._groups.all:
            yield from ((group, child) for child in group.children if child.reads_settings)

    def switch(self, message: Switch) -> None:
        """Tell every process that the version of ``message`` is in force."""
        self._is_switching = True
        self._wait_for_ready(older_than=message.version)
        for _, child in self._readers():
            child.refusal = ""
            self._roster.say(child, message)

    def tell_commands(self) -> None:
        """Send each ready command the signal that tells it of new settings, if it has one."""
        self._roster.tell_of_settings()

    def lead_logs(self, logs: LogFiles) -> None:
        """Have the workers write to ``logs``, since their paths have changed."""
        for group, child in self._readers():
            if group.is_drained:
                self._roster.say(child, ReopenLogs(logs.access_path), logs.descriptors())

    def drop(self) -> None:
        """End a vote without an outcome; late votes count nothing."""
        self._attempt += 1
        self._end("")

    def note_vote(self, child: Child, vote: Vote) -> None:
        """Note the vote of ``child``."""
        if vote.attempt != self._attempt or child not in self._waiting or self._is_switching:
            return
        group = self._waiting[child]
        if vote.refusal:
            child.refusal = vote.refusal
            self._fail(f"{_name(group, child)} refuses: {vote.refusal}")
        else:
            self._cross_off(child)

    def note_end(self, child: Child) -> None:
        """Note that ``child`` has ended; a check may have ended it."""
        if self._is_switching:
            self.note_switched(child)
        elif child in self._waiting:
            self._fail(f"{_name(self._waiting[child], child)} ended before it had voted on {self._keys()}")

    def note_switched(self, child: Child) -> None:
        """Note that the version is in force in ``child``, or that it has ended."""
        if self._is_switching and child in self._waiting:
            self._cross_off(child)

    def _cross_off(self, child: Child) -> None:
        del self._waiting[child]
        if not self._waiting:
            self._end("")

    def turn(self) -> None:
        """End a push that lasts too long, or go on without processes that cannot be heard."""
        now = self._clock()
        if self._waiting:
            self._leave_out_unheard(now)
        else:
            self.wake_at = self._give_up_at
        if now < self._give_up_at:
            return
        silent = ", ".join(_name(group, child) for child, group in self._waiting.items())
        if self._is_switching:
            logger.warning("Settings: not yet switched: %s", silent)
            self._end("")
            return
        reason = f"no vote within settings_timeout ({self._cluster.options.settings_timeout:g} s)"
        for child in self._waiting:
            child.refusal = reason
        self._fail(f"{reason} from {silent}, on {self._keys()}")

    def _leave_out_unheard(self, now: float) -> None:
        unheard = [child for child in self._waiting if not child.reads_settings]
        gone = [child for child in unheard if now >= self._unheard.setdefault(child, now + UNHEARD_SECONDS)]
        self.wake_at = min([self._give_up_at, *(self._unheard[child] for child in unheard)])
        for child in gone:
            self._cross_off(child)

    def _keys(self) -> str:
        old, new = self._cluster.settings.texts, self._proposed.texts
        changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        return with_places(changed, self._proposed.places)

    def _fail(self, reason: str) -> None:
        logger.error("Settings stay at version %d: %s", self._cluster.settings_version, reason)
        self._end(reason)

    def _end(self, failure: str) -> None:
        self.failure, self._waiting, self._unheard = failure, {}, {}
        self.wake_at = self._give_up_at = _NEVER


def _name(group: Group, child: Child) -> str:
    return f"{group.noun} (pid: {child.pid}, slot: {child.slot})"
