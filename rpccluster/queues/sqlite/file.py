"""The file of queues: one keeper has it, on a file system of this machine, and it is a file of ours. In the keeper."""

from __future__ import annotations

import fcntl
import os
import sqlite3

from rpccluster.errors import StartError
from rpccluster.queues.sqlite.schema import APPLICATION, PRAGMAS, SCHEMA, VERSION
from rpccluster.system.mounts import file_system_of, is_network_file_system

__all__ = ["CORRUPT", "Claim", "connect", "open_database"]

CORRUPT = (
    "{path} is damaged ({error}). Stop the cluster, copy {path} and {path}-wal, then save what can be read with:"
    ' sqlite3 {path} ".recover" | sqlite3 NEW; or move the file away to begin with empty queues'
)
_HEADER = b"SQLite format 3\0"


class Claim:
    """The right to be the one keeper of a file. It ends with the process."""

    def __init__(self, path: str) -> None:
        """Claim the file. Raises `StartError` that names the process which has it."""
        kind = file_system_of(path)
        if is_network_file_system(kind):
            raise StartError(
                f"cannot keep queues in {path}: it is on a network file system ({kind}), where locks and fsync do not"
                " hold what they promise; set [queues] path to a disk of this machine"
            )
        self._path = f"{path}.lock"
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StartError(f"cannot keep queues in {path}: cannot open {self._path}: {error.strerror}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StartError(f"cannot keep queues in {path}: process {holder or '?'} keeps them there") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def give_up(self) -> None:
        """Let another process have the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def connect(path: str) -> sqlite3.Connection:
    """Return a connection whose transactions are begun and ended by hand. Any thread may use it, one at a time."""
    database = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False, cached_statements=256)
    for pragma in PRAGMAS:
        database.execute(f"pragma {pragma}").fetchall()
    return database


def open_database(path: str) -> sqlite3.Connection:
    """Open the file, or make it. Raises `StartError`, whose text says what to do."""
    try:
        _check_header(path)
        database = connect(path)
        _check_version(database, path)
    except sqlite3.DatabaseError as error:
        raise StartError(_why(path, error)) from None
    return database


def _check_header(path: str) -> None:
    """Raise `StartError` unless the file is a database, empty, or not there."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # values may be secrets
        with open(path, "rb") as file:
            header = file.read(len(_HEADER))
    except OSError as error:
        raise StartError(f"cannot keep queues in {path}: {error.strerror}") from None
    if header and header != _HEADER:
        raise StartError(f"cannot keep queues in {path}: it is no SQLite database; move it away, or set [queues] path")


def _check_version(database: sqlite3.Connection, path: str) -> None:
    (application,) = database.execute("pragma application_id").fetchone()
    (version,) = database.execute("pragma user_version").fetchone()
    (tables,) = database.execute("select count(*) from sqlite_master").fetchone()
    if not tables:
        database.executescript(f"begin immediate; {SCHEMA} commit;")
    elif application != APPLICATION:
        raise StartError(f"cannot keep queues in {path}: it is a database of another program; set [queues] path")
    elif version > VERSION:
        raise StartError(
            f"cannot keep queues in {path}: found version {version}, expected at most {VERSION}: a newer rpccluster has"
            " written it; start that one, or set another [queues] path"
        )


def _why(path: str, error: sqlite3.DatabaseError) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return f"cannot keep queues in {path}: {error}"
    return CORRUPT.format(path=path, error=error)
