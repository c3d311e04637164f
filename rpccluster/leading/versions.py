"""A small thing of which one machine's processes make one version after another, and none waits for another one.

The version N stands in the file NAME.N, which is linked there as a whole, and only if there is none of that number yet:
link(2) is the comparison and the change in one. The present version is the one with the highest number; the one before
goes when it is there. So a process that is stopped or killed anywhere holds nobody up; one that goes on after others
have made further versions finds its number taken, or has made one that is not the highest: both mean that it has
changed nothing. NAME itself is a link to the present version, for people; nothing here reads it. Any process.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re

from rpccluster.system.replacing import sync_folder

__all__ = ["MOST_BYTES", "Versions"]

MOST_BYTES = 1 << 20
_READS = 100  # of a version that goes while it is opened, as others are made


class Versions:
    """The versions of the thing at ``path``. ``owner`` names its user among the others."""

    def __init__(self, path: str, owner: str) -> None:
        self.path = path
        folder, name = os.path.split(path)
        self._folder = folder or os.curdir
        self._is_version = re.compile(re.escape(name) + r"\.([0-9]{1,18})")
        self._prepared = os.path.join(folder, f".{name}.{owner}.new")
        self._link = os.path.join(folder, f".{name}.{owner}.link")
        self._all_prepared = os.path.join(glob.escape(folder), f".{glob.escape(name)}.*.*")
        self._number = 0  # of the version that was read last

    @property
    def present(self) -> str:
        """The path of the version that was read last; it changes no more, and goes when there is another one."""
        return f"{self.path}.{self._number}"

    def read(self) -> bytes:
        """Return the present version; nothing if there is none. Raises OSError."""
        for _ in range(_READS):
            self._number = max(self._numbers(), default=0)
            if not self._number:
                return b""
            with contextlib.suppress(FileNotFoundError), open(self.present, "rb") as file:
                content = file.read(MOST_BYTES + 1)
                if len(content) > MOST_BYTES:
                    raise OSError(errno.EFBIG, f"found more than {MOST_BYTES} bytes")
                return content
        raise OSError(errno.EBUSY, "others change it all the time")

    def _numbers(self) -> list[int]:
        found = (self._is_version.fullmatch(name) for name in os.listdir(self._folder))
        return [int(match[1]) for match in found if match is not None]

    def change(self, expected: bytes, new: bytes) -> bool:
        """Make ``new`` the next version after the one that was read last, ``expected``, and have the disk keep it.

        Returns False if another process has made one since: then it has changed nothing, or nothing that stands any
        more. Raises OSError.
        """
        number = self._number + 1
        self._prepare(new)
        try:
            os.link(self._prepared, f"{self.path}.{number}")
        except (FileExistsError, FileNotFoundError):  # another one was faster, or has swept away what was prepared
            return False
        finally:
            self.clear()
        sync_folder(self._folder)
        numbers = self._numbers()
        is_present = max(numbers, default=0) == number
        for old in numbers if is_present else [number]:
            if old != number or not is_present:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self.path}.{old}")
        if is_present:
            self._number = number
            self._show(number)
        return is_present

    def _prepare(self, new: bytes) -> None:
        self.clear()  # it may be a version already, of a process that was killed
        descriptor = os.open(self._prepared, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(descriptor, "wb") as file:
            file.write(new)
            file.flush()
            os.fsync(descriptor)

    def _show(self, number: int) -> None:
        """Let the plain name lead to the version ``number``, unless it is no link."""
        with contextlib.suppress(OSError):
            if os.path.islink(self.path) or not os.path.lexists(self.path):
                os.symlink(f"{os.path.basename(self.path)}.{number}", self._link)
                os.rename(self._link, self.path)

    def sweep(self) -> None:
        """Remove what killed processes have prepared. One that lives prepares it again."""
        for name in glob.glob(self._all_prepared):
            if name != self._prepared and name.endswith((".new", ".link")):
                with contextlib.suppress(OSError):
                    os.unlink(name)

    def clear(self) -> None:
        """Remove what this process has prepared."""
        for name in (self._prepared, self._link):
            with contextlib.suppress(OSError):
                os.unlink(name)
