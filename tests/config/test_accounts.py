"""The ids of users and groups, by name and by number."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable

import pytest

from rpccluster.config import gid_of, uid_of
from rpccluster.errors import StartError


def test_names_are_looked_up() -> None:
    """Every account of this machine can be named."""
    assert all(uid_of(entry.pw_name) == pwd.getpwnam(entry.pw_name).pw_uid for entry in pwd.getpwall())
    assert all(gid_of(entry.gr_name) == grp.getgrnam(entry.gr_name).gr_gid for entry in grp.getgrall())


@pytest.mark.parametrize("look_up", [uid_of, gid_of])
def test_numbers_need_no_account(look_up: Callable[[str], int]) -> None:
    """Inside a container an id often has no name."""
    assert look_up("0") == 0
    assert look_up("54321") == 54321
    assert look_up(str(2**32 - 2)) == 2**32 - 2


@pytest.mark.parametrize("look_up", [uid_of, gid_of])
@pytest.mark.parametrize("name", ["no-such-account", str(2**32 - 1), "-1", "1.5", "²", "a\0b", "\udcff", ""])
def test_the_unknown_is_refused(look_up: Callable[[str], int], name: str) -> None:
    """A misspelt account stops the start, it never becomes root or "unchanged"."""
    with pytest.raises(StartError, match=r"^found '.*', expected a (user|group) of this machine, or a number"):
        look_up(name)
