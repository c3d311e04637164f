"""The engine on SQLite: a batch is decided and written in the loop's thread, and committed in a native one.

The statements are short, and each gives up the interpreter's lock: in another thread than the loop's they would wait
for it each time. The commit, which waits for the disk, is the one that must not hold the loop up. Runs in the keeper.
"""

from __future__ import annotations

import _thread
import functools
import sqlite3
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Callable

from rpccluster.errors import EngineFailed, QueueDown, StartError
from rpccluster.queues.book import Book
from rpccluster.queues.engine import EndSession, Outcome, Rules, Verb
from rpccluster.queues.sqlite.file import CORRUPT, Claim, open_database
from rpccluster.queues.sqlite.store import SQLiteStore
from rpccluster.queues.sqlite.upkeep import Upkeep
from rpccluster.queues.timescale import Kept, Timescale, boot_id

__all__ = ["DURABLE", "SQLiteEngine"]

#: What `durable` may be, and how SQLite syncs its log: at each commit, or when a checkpoint needs it.
DURABLE = {"always": "full", "second": "normal", "os": "normal"}

_SECOND = 1.0  # after which a commit of `durable = second` is on disk
_FULL = "database or disk is full"


class SQLiteEngine:
    """Keeps all queues in one file. See `Engine`."""

    may_be_silent = False

    def __init__(
        self,
        path: str,
        durable: str = "always",
        spawn: Callable[..., object] = _thread.start_new_thread,
        make_time: Callable[[Kept | None, str], Timescale] = Timescale,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """``durable`` is ``always``, ``second`` or ``os``; ``spawn`` starts a native thread, ``sleep`` holds it."""
        self._path = path
        self._durable = durable
        self._spawn = spawn
        self._make_time = make_time
        self._sleep = sleep
        self._rules: Mapping[str, Rules] = {}
        self._default: Rules | None = None
        self._kept_at = float("-inf")  # when the file was last told the time
        self._is_unsynced = False  # `durable = second`: commits since then are not on disk
        self._unsynced_from = 0.0

    # -- begin and end

    def open(self) -> list[bytes]:
        """Begin. Returns the sessions that have leases from before. Raises `StartError`."""
        self._claim = Claim(self._path)
        try:
            self._open()
        except BaseException:
            self._claim.give_up()
            raise
        return self._book.sessions()

    def _open(self) -> None:
        self._database = open_database(self._path)
        try:
            self._sync_by(DURABLE[self._durable])
            self._time = self._make_time(self._kept(), boot_id())
            self._upkeep = Upkeep(self._path, self._database, self._spawn, self._sleep)
            self._read()
        except sqlite3.DatabaseError as error:
            raise StartError(CORRUPT.format(path=self._path, error=error)) from None

    def _kept(self) -> Kept | None:
        row = self._database.execute("select boot, booted_for, wall, at from state").fetchone()
        return Kept(*row) if row[2] else None

    def _read(self, ending: Mapping[bytes, bool] = MappingProxyType({})) -> None:
        """Read what the file has, at the begin and after a transaction that was not committed.

        The sessions of ``ending`` have ended; see `Book.ending`.
        """
        self._store = SQLiteStore(self._database)
        self._book = Book(self._store, self._rules, self._default)
        for session, counts in ending.items():
            self._book.end_session(session, counts)

    def configure(self, rules: Mapping[str, Rules], default: Rules | None) -> None:
        """Take over what the sections say."""
        self._rules, self._default = rules, default
        if hasattr(self, "_book"):
            self._book.configure(rules, default)

    def close(self) -> None:
        """End, and let another one open the file."""
        self._upkeep.close()
        self._database.close()
        self._claim.give_up()

    def warnings(self) -> list[str]:
        """Return nothing: what is asked for is done."""
        return []

    def fileno(self) -> int | None:
        """Return None: nobody else changes the file."""
        return None

    # -- batches

    def run(self, verbs: Sequence[Verb]) -> Outcome:
        """Run a batch as one transaction. Raises `EngineFailed`."""
        begun = self.start(verbs)
        return begun if isinstance(begun, Outcome) else begun()

    def start(self, verbs: Sequence[Verb]) -> Outcome | Callable[[], Outcome]:
        """Decide and write a batch, and return what commits it. Raises `EngineFailed`."""
        now = self._time.now()
        must_sync = self._is_unsynced and now >= self._unsynced_from + _SECOND
        try:
            if must_sync:
                self._sync_by("full")
            self._database.execute("begin immediate")
            changes = self._database.total_changes
            outcome = self._book.run(verbs, now)
            self._store.flush()
            if self._database.total_changes == changes and not must_sync:
                self._database.execute("commit")
                return outcome
            if now >= self._kept_at + _SECOND or must_sync:
                self._keep_time(now)
            return functools.partial(self._commit, outcome, now)
        except sqlite3.Error as error:
            ending = {verb.session: verb.counts for verb in verbs if isinstance(verb, EndSession)}
            return self._not_committed(verbs, error, ending)

    def _commit(self, outcome: Outcome, now: float) -> Outcome:
        try:
            self._database.execute("commit")
        except sqlite3.Error as error:
            return self._not_committed(outcome.answers, error)
        self._keep_up(self._upkeep.after_commit)
        return self._note_sync(outcome, now) if self._durable == "second" else outcome

    def _note_sync(self, outcome: Outcome, now: float) -> Outcome:
        """Have the next commit sync, at the latest a second after the first one that is not on disk."""
        if self._sync != DURABLE["second"]:
            self._sync_by(DURABLE["second"])
            self._is_unsynced = False
            return outcome
        if not self._is_unsynced:
            self._is_unsynced = True
            self._unsynced_from = now
        due = max(0.0, self._unsynced_from + _SECOND - now)
        return outcome._replace(wake_in=due if outcome.wake_in is None else min(due, outcome.wake_in))

    def _sync_by(self, how: str) -> None:
        self._database.execute(f"pragma synchronous = {how}")
        self._sync = how

    def _keep_time(self, now: float) -> None:
        self._database.execute("update state set boot = ?, booted_for = ?, wall = ?, at = ?", self._time.keep())
        self._kept_at = now

    def _not_committed(
        self, verbs: Sequence[object], error: sqlite3.Error, ending: Mapping[bytes, bool] = MappingProxyType({})
    ) -> Outcome:
        """Answer a batch that a full disk has kept from being committed. Raises `EngineFailed` for all other errors.

        The sessions that it ended, ``ending`` among them, are ended with a later one, since nobody asks for that again.
        """
        if _FULL not in str(error):
            raise EngineFailed(self._why(error)) from None
        try:
            if self._database.in_transaction:
                self._database.execute("rollback")
            self._read({**self._book.ending, **ending})
        except sqlite3.Error as another:
            raise EngineFailed(self._why(another)) from None
        down = QueueDown(f"nothing was changed: the disk of {self._path} is full")
        return Outcome([down] * len(verbs), frozenset(), frozenset(), _SECOND)

    def _why(self, error: sqlite3.Error) -> str:
        if isinstance(error, sqlite3.OperationalError):
            return f"cannot keep queues in {self._path}: {error}"
        return CORRUPT.format(path=self._path, error=error)

    def keep_up(self, *, is_idle: bool = True) -> bool:
        """Do a small piece of upkeep. Returns whether more is due. Raises `EngineFailed`."""
        return self._keep_up(lambda: self._upkeep.step(self._time.now(), is_idle=is_idle))

    def _keep_up(self, do: Callable[[], object]) -> bool:
        """Let the upkeep work. A full disk puts it off: what was committed is in the log."""
        try:
            return bool(do())
        except sqlite3.Error as error:
            if _FULL not in str(error):
                raise EngineFailed(self._why(error)) from None
            if self._database.in_transaction:
                self._database.execute("rollback")
            return False
