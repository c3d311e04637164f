"""The kind of file system that a path lies on, by /proc/self/mountinfo (proc_pid_mountinfo(5)). Any process."""

from __future__ import annotations

import os
import re

__all__ = ["file_system_of", "is_network_file_system"]

_NETWORK = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
        *("fuse.beegfs", "fuse.ceph", "fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
        *("ocfs2", "orangefs", "smb3", "smbfs", "virtiofs"),
    )
)
_ESCAPED = re.compile(r"\\([0-7]{3})")


def file_system_of(path: str) -> str:
    """Return the type of the file system of ``path``, which need not exist; empty if it cannot be told."""
    real = os.path.realpath(path)
    longest, found = -1, ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, behind = line.partition(" - ")
        point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), before.split()[4])
        if os.path.commonpath([real, point]) == point and len(point) >= longest:
            longest, found = len(point), behind.split()[0]  # of two on one point the later one hides the other
    return found


def is_network_file_system(kind: str) -> bool:
    """Return whether other machines may write to file systems of this ``kind``, so that locks may not hold there."""
    return kind in _NETWORK
