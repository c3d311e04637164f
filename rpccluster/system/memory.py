"""Memory of a process: its size, what the collector and the C library keep, and parts shared with others.

Processes that share a file in memory divide it by locks on single bytes, which the kernel drops when their holder ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import gc
import mmap
import os
import struct

__all__ = [
    "give_back_freed_memory",
    "is_byte_locked",
    "keep_freed_memory",
    "keep_out_of_collections",
    "let_go_of_file",
    "lock_byte",
    "make_private",
    "map_for_this_process",
    "reach",
    "resident_bytes",
    "sealed_memory_file",
]

_M_TRIM_THRESHOLD = -1  # malloc.h
_M_MMAP_THRESHOLD = -3
_MAP_FIXED = 0x10  # mman.h
_FLOCK = "hhqqi0q"  # struct flock of fcntl.h: type, whence, start, length, pid
_ADD_SEALS = 1033  # fcntl.h
_SEALS = 0x1 | 0x2 | 0x4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW


@functools.lru_cache(maxsize=1)
def _page_size() -> int:
    """Return the bytes in a page of memory."""
    return os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | str = "self") -> int:
    """Return the resident set size of a process in bytes; 0 if it has ended. Source: proc(5), statm."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _page_size()
    except (OSError, IndexError):
        return 0


def keep_out_of_collections() -> None:
    """Keep the garbage collector away from all present objects. PyPy's collector does not visit all each time."""
    if hasattr(gc, "freeze"):
        gc.freeze()


def keep_freed_memory(most_bytes: int) -> None:
    """Let the C library keep up to ``most_bytes`` of freed memory instead of giving it back page by page.

    Giving memory back and faulting it in again costs more than copying a large message. Only glibc has mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(parameter, most_bytes)


def give_back_freed_memory() -> None:
    """Give the kernel all pages of memory that Python and the C library have kept.

    A collection empties Python's lists of free objects, which keep whole arenas. Only glibc has malloc_trim(3).
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def make_private(memory: mmap.mmap) -> None:
    """Replace shared ``memory`` by zeros that only this process sees; views of it stay valid.

    Raises OSError. Source: mmap(2), MAP_FIXED.
    """
    c_library = ctypes.CDLL(None, use_errno=True)
    c_library.mmap.restype = ctypes.c_void_p
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    size, protection, offset = ctypes.c_size_t(len(memory)), mmap.PROT_READ | mmap.PROT_WRITE, ctypes.c_long(0)
    if c_library.mmap(ctypes.c_void_p(address), size, protection, flags, -1, offset) != address:
        raise OSError(ctypes.get_errno(), "mmap")


def lock_byte(descriptor: int, place: int) -> bool:
    """Lock one byte of a file for this process, until it ends or closes any descriptor of the file.

    Returns False if another process has it. Raises OSError. Source: fcntl(2), advisory record locking.
    """
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES
        return False
    return True


def is_byte_locked(descriptor: int, place: int) -> bool:
    """Return whether another process has locked this byte of a file. Raises OSError."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    return bool(struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK)


def reach(descriptor: int, size: int) -> None:
    """Make a file at least ``size`` bytes long; other processes may do so at the same time. Raises OSError."""
    if os.fstat(descriptor).st_size < size:
        os.pwrite(descriptor, b"\0", size - 1)


def sealed_memory_file(size: int, name: str) -> int:
    """Make a file in memory whose ``size`` nobody can change any more, and return its descriptor; /proc shows ``name``.

    What is not written costs nothing. Raises OSError if that is impossible here.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError("there are no sealed files in memory")
    descriptor = os.memfd_create(f"rpccluster-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def map_for_this_process(descriptor: int, size: int) -> mmap.mmap:
    """Map ``size`` bytes of a file, shared with others that map it, but not with forked children. Raises OSError."""
    memory = mmap.mmap(descriptor, size)
    with contextlib.suppress(AttributeError):  # PyPy
        memory.madvise(mmap.MADV_DONTFORK)
    return memory


def let_go_of_file(file: os.stat_result) -> None:
    """Let each descriptor of ``file`` in this process stand for /dev/null, whatever has made it; all stay open.

    A mapping that is in use cannot be closed, and CPython's mmap has a descriptor of its own, a duplicate.
    """
    with contextlib.suppress(OSError), open(os.devnull, "rb") as null:
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the listing's own descriptor
                if os.path.samestat(os.fstat(int(name)), file):
                    os.dup2(null.fileno(), int(name), inheritable=False)
