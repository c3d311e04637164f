"""The upkeep of the file, in pieces: checkpoints beside the commits, what was purged, free pages. Runs in the keeper.

The write-ahead log is copied into the database by a connection and a thread of its own, while commits go on. The log
begins anew only when nothing was written meanwhile; so a short rest is copied between two commits once it is long. If
more is written than can be copied, commits wait for the copy: the log has a limit, to which one batch may add.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from typing import Callable

from rpccluster.queues.sqlite.file import connect

__all__ = ["Upkeep"]

COPY_FRAMES = 1000  # pages of the log that were not copied yet, from which on they are, beside the commits
RESTART_FRAMES = 24_000  # pages of the log, from which on it is to begin anew
MOST_FRAMES = 48_000  # pages of the log, from which on no commit begins before all was copied
REST_FRAMES = 300  # pages that are copied between two commits, to have it begin anew
TRIES = 5  # to copy so much beside the commits that no more is left
STEP_SECONDS = 0.005
_PAGES = 64
_ROWS = 500
_KEPT_PAGES = 256  # free pages that stay, for what comes next
_COPYING_SECONDS = 0.001  # between two looks whether a copy has ended
SESSION_SECONDS = 24 * 3600.0  # without a put, after which a session's last number is forgotten
_LOOK_SECONDS = 3600.0  # between two looks for such sessions


class LogLength:
    """Tells how long the write-ahead log is, in pages. Source: "WAL-Index File Format", sqlite.org/walformat.html."""

    def __init__(self, path: str) -> None:
        """Read the index beside ``path``, which an open database has."""
        self._descriptor = os.open(f"{path}-shm", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> tuple[int, int]:
        """Return how many pages the log has (mxFrame), and how many of them were copied (nBackfill)."""
        index = os.pread(self._descriptor, 100, 0)
        return struct.unpack_from("=I", index, 16)[0], struct.unpack_from("=I", index, 96)[0]

    def close(self) -> None:
        """Stop. This ends the database's locks in this process, so it has to be closed before."""
        os.close(self._descriptor)


class Upkeep:
    """What has to be done with a file beside the transactions of its owner."""

    def __init__(
        self,
        path: str,
        database: sqlite3.Connection,
        spawn: Callable[..., object],
        sleep: Callable[[float], object],
    ) -> None:
        """``spawn`` starts a native thread with a function, ``sleep`` makes a native thread wait."""
        self._database = database
        self._beside = connect(path)
        self._spawn = spawn
        self._sleep = sleep
        self._log = LogLength(path)
        self._is_copying = False
        self._tries = 0
        self._failure: BaseException | None = None
        self._look_at = float("-inf")  # when sessions are looked through again, by the engine's time
        self._looked_through = b""  # the last session that was looked at

    def after_commit(self) -> None:
        """Begin to copy a long log beside the commits, or copy the rest of a very long one, which takes milliseconds.

        One that has reached its limit is copied as a whole. Raises what has failed in a copy before.
        """
        self._raise_failure()
        length, copied = self._log.read()
        if length >= MOST_FRAMES:
            self._wait_for_the_copy()
            self._database.execute("pragma wal_checkpoint(passive)").fetchall()
            return
        if self._is_copying:
            return
        rest = length - copied
        if length < RESTART_FRAMES:
            self._tries = 0
            if rest >= COPY_FRAMES:
                self._begin_copy()
        elif rest > REST_FRAMES and self._tries < TRIES:
            self._tries += 1
            self._begin_copy()
        else:
            self._database.execute("pragma wal_checkpoint(passive)").fetchall()

    def step(self, now: float, *, is_idle: bool = True) -> bool:
        """Do a piece of what is due, between two transactions. Returns whether more is due.

        The log is copied when nothing else is due and the keeper ``is_idle``: else commits see to it.
        """
        self._raise_failure()
        until = time.monotonic() + STEP_SECONDS
        while time.monotonic() < until:
            if not (self._remove_discarded() or self._shrink() or self._forget(now) or self._forget_sessions(now)):
                return is_idle and self._copy_when_idle()
        return True

    def close(self) -> None:
        """End the connection beside; a copy that is under way is waited for."""
        self._wait_for_the_copy()
        self._beside.close()
        self._log.close()

    # -- inside

    def _wait_for_the_copy(self) -> None:
        while self._is_copying:
            self._sleep(_COPYING_SECONDS)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _begin_copy(self) -> None:
        self._is_copying = True
        self._spawn(self._copy, ())

    def _copy(self) -> None:
        try:
            self._beside.execute("pragma wal_checkpoint(passive)").fetchall()
        except sqlite3.DatabaseError as error:
            self._failure = error
        finally:
            self._is_copying = False

    def _copy_when_idle(self) -> bool:
        """Copy what the log has. Returns whether that goes on."""
        if not self._is_copying:
            length, copied = self._log.read()
            if length - copied > REST_FRAMES:
                self._begin_copy()
            elif length > copied:
                self._database.execute("pragma wal_checkpoint(passive)").fetchall()
        return self._is_copying

    def _remove_discarded(self) -> bool:
        row = self._database.execute("select queue from discarded limit 1").fetchone()
        if row is None:
            return False
        which = "select id from items where queue = ? and state = {} limit ?"
        for state in (0, 1, 2, 4):
            if self._remove(which.format(state), (row[0], _ROWS)):
                return True
        self._database.execute("delete from discarded where queue = ?", row)
        return True

    def _remove(self, which: str, parameters: tuple[object, ...]) -> bool:
        ids = self._database.execute(which, parameters).fetchall()
        if ids:
            self._database.execute("begin immediate")
            self._database.executemany("delete from items where id = ?", ids)
            self._database.executemany("delete from large where id = ?", ids)
            self._database.execute("commit")
        return bool(ids)

    def _shrink(self) -> bool:
        (free,) = self._database.execute("pragma freelist_count").fetchone()
        if free <= _KEPT_PAGES:
            return False
        self._database.execute(f"pragma incremental_vacuum({_PAGES})").fetchall()
        return True

    def _forget(self, now: float) -> bool:
        which = "select queue, dedup_id from duplicates where until <= ? order by until limit ?"
        rows = self._database.execute(which, (now, _ROWS)).fetchall()
        if rows:
            self._database.execute("begin immediate")
            self._database.executemany("delete from duplicates where queue = ? and dedup_id = ?", rows)
            self._database.execute("commit")
        return bool(rows)

    def _forget_sessions(self, now: float) -> bool:
        """Forget some sessions that have put nothing for long; all are looked through once an hour."""
        if now < self._look_at:
            return False
        which = "select session, at from sessions where session > ? order by session limit ?"
        rows = self._database.execute(which, (self._looked_through, _ROWS)).fetchall()
        old = [(session,) for session, at in rows if at <= now - SESSION_SECONDS]
        if old:
            self._database.execute("begin immediate")
            self._database.executemany("delete from sessions where session = ?", old)
            self._database.execute("commit")
        is_more = len(rows) == _ROWS
        self._looked_through = rows[-1][0] if is_more else b""
        self._look_at = self._look_at if is_more else now + _LOOK_SECONDS
        return is_more
