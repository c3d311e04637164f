"""A file at one name that several processes of one machine change, each on the ground of what it has read. Any process.

The content at any instant, also after a kill or a crash, is that of one whole change. A change is prepared in a file
beside it, ``.NAME.OWNER.new``, and flushed to the disk before the lock is taken. Under the lock, ``NAME.lock``, the
file is only compared with what was read, and the prepared one renamed. So a process that is stopped there keeps others
from changing, but from nothing else; that it holds the lock for a few system calls makes this rare.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import time

from rpccluster.leading.versions import MOST_BYTES
from rpccluster.system.replacing import sync_folder

__all__ = ["SharedFile"]

_LOOK_SECONDS = 0.005


class SharedFile:
    """The file at ``path``. ``owner`` names its user among the others; ``lock_path`` may be that of another file."""

    def __init__(self, path: str, owner: str, lock_seconds: float = 1.0) -> None:
        self.path = path
        folder, name = os.path.split(path)
        self._folder = folder or os.curdir
        self._prepared = os.path.join(folder, f".{name}.{owner}.new")
        self._all_prepared = os.path.join(glob.escape(folder), f".{glob.escape(name)}.*.new")
        self._lock_path = f"{path}.lock"
        self._lock_seconds = lock_seconds

    def read(self) -> bytes:
        """Return the content; nothing if there is no file. Raises OSError."""
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise OSError(errno.EFBIG, f"found more than {MOST_BYTES} bytes")
            return content
        return b""

    def change(self, expected: bytes, new: bytes) -> bool:
        """Replace the content ``expected`` by ``new``, and have the disk keep it. Returns whether it was expected.

        Raises OSError, TimeoutError if another process holds the lock for longer than ``lock_seconds``.
        """
        self._prepare(new)
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(lock)
            if self.read() != expected:
                return False
            os.rename(self._prepared, self.path)
        except FileNotFoundError:  # somebody has swept it away
            return False
        finally:
            os.close(lock)
        sync_folder(self._folder)
        return True

    def sweep(self) -> None:
        """Remove what killed processes have prepared. One that lives prepares it again."""
        for name in glob.glob(self._all_prepared):
            if name != self._prepared:
                with contextlib.suppress(OSError):
                    os.unlink(name)

    def clear(self) -> None:
        """Remove what this process has prepared and not used."""
        with contextlib.suppress(OSError):
            os.unlink(self._prepared)

    def _prepare(self, new: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._prepared, flags, 0o644)
        with open(descriptor, "wb") as file:
            file.write(new)
            file.flush()
            os.fsync(descriptor)

    def _take(self, lock: int) -> None:
        until = time.monotonic() + self._lock_seconds
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise TimeoutError(errno.ETIMEDOUT, f"another process holds {self._lock_path}") from None
                time.sleep(_LOOK_SECONDS)
