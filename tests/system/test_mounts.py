"""On what kind of file system a path lies."""

from __future__ import annotations

from rpccluster.system.mounts import file_system_of, is_network_file_system


def test_the_kind_of_a_file_system_is_found() -> None:
    """Also of a path that is not there."""
    assert file_system_of("/proc/self/status") == "proc"
    assert file_system_of("/proc/nothing/of/this/name") == "proc"
    assert file_system_of("/") != ""


def test_network_file_systems_are_known() -> None:
    """By their names."""
    assert is_network_file_system("nfs4") and is_network_file_system("fuse.sshfs")
    assert not is_network_file_system("ext4") and not is_network_file_system("overlay")
