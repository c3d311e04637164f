"""Who may write where, told from permissions alone: for the account that the workers will be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rpccluster.system.processes.identity import Identity

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")

SOMEBODY = Identity(4711, 4712, None)


@pytest.mark.parametrize(
    ("uid", "gid", "mode", "may"),
    [
        (4711, 0, 0o700, True),
        (4711, 4712, 0o077, False),  # the owner's bits count for the owner, whatever the others may
        (0, 4712, 0o070, True),
        (0, 4712, 0o707, False),
        (0, 0, 0o777, True),
        (0, 0, 0o1777, True),
        (0, 0, 0o772, False),
        (0, 0, 0o770, False),
    ],
)
def test_the_mode_decides(tmp_path: Path, uid: int, gid: int, mode: int, may: bool) -> None:
    """To make files takes the right to write and to enter."""
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o711)
    folder = tmp_path / "it"
    folder.mkdir()
    os.chown(folder, uid, gid)
    folder.chmod(mode)
    assert SOMEBODY.may_write(str(folder)) is may
    tmp_path.chmod(0o700)
    assert not SOMEBODY.may_write(str(folder))
    assert not SOMEBODY.may_write(str(folder / "none"))
