"""The section ``[leadership]``: its values, and every fault of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpccluster.address import TCPAddress, UnixAddress
from rpccluster.config import Machine, Sources, load
from rpccluster.config.sections import leadership
from rpccluster.config.sections.leadership import LeadershipOptions, with_cluster
from rpccluster.errors import ConfigError
from rpccluster.leading.address import StoreAddress

CLUSTER = "[cluster]\nservice = rpccluster.demo:Demo\n"


def loaded(folder: Path, text: str, cluster: str = "bind = unix:///run/s\n") -> LeadershipOptions:
    (folder / "x.ini").write_text(f"{CLUSTER}{cluster}[leadership]\n{text}")
    configuration = load(Sources("x.ini", start_folder=str(folder)), Machine())
    own: LeadershipOptions = configuration.others["leadership"]
    return with_cluster(own, configuration.options)


def faults(folder: Path, text: str, cluster: str = "bind = unix:///run/s\n") -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loaded(folder, text, cluster)
    return [fault.partition(": ")[2] for fault in raised.value.faults]


def test_a_file_is_relative_to_the_start_folder_and_bind_is_advertised(tmp_path: Path) -> None:
    """Everything else stands at its default."""
    found = loaded(tmp_path, "engine = file:lead\n")
    assert found == LeadershipOptions(StoreAddress(f"{tmp_path}/lead"), advertise=(UnixAddress("/run/s"),))


def test_what_is_advertised_stands_instead_of_bind(tmp_path: Path) -> None:
    """Also where bind is a wildcard."""
    text = "engine = zookeeper://a,b:3/p\nadvertise = host.example:7000\n"
    found = loaded(tmp_path, text, "bind = 0.0.0.0:7000\n")
    assert found.advertise == (TCPAddress("host.example", 7000),)
    assert str(found.engine) == "zookeeper://a:2181,b:3/p"


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        ("0.0.0.0:7000", "bind is tcp://0.0.0.0:7000: it stands for all of this machine's"),
        ("[::]:7000", "bind is tcp://[::]:7000: it stands for all of this machine's"),
        ("127.0.0.1:0", "bind is tcp://127.0.0.1:0: the kernel picks the port"),
        ("fd://web", "bind is fd://web: systemd knows which addresses these are"),
    ],
)
def test_an_address_that_stands_for_others_must_be_told(tmp_path: Path, bind: str, reason: str) -> None:
    """Nobody could call it."""
    told = f"advertise: found nothing, expected addresses that others can call, since {reason}"
    assert faults(tmp_path, "engine = file:lead\n", f"bind = {bind}\n") == [told]


def test_it_needs_a_cluster_and_an_engine(tmp_path: Path) -> None:
    """A section without an engine does nothing."""
    expected = "engine: found nothing, expected zookeeper://HOST:PORT,…/PATH or file:PATH"
    assert faults(tmp_path, "") == [expected]


def test_its_own_faults(tmp_path: Path) -> None:
    """All at once."""
    (tmp_path / "open").write_text("secret\n")
    (tmp_path / "open").chmod(0o644)
    text = "engine = zookeeper://a/p\npassword_file = open\nsession_timeout = 1.5\nadvertise = 0.0.0.0:1, a.example:0\n"
    callable_ = "expected an address that others can call"
    assert faults(tmp_path, text) == [
        f"password_file: found '{tmp_path}/open', which others may use (mode 0644), expected mode 0600",
        "session_timeout: found 1.5, expected 2 or more",
        f"advertise: found tcp://0.0.0.0:1, {callable_}: it stands for all of this machine's",
        f"advertise: found tcp://a.example:0, {callable_}: the kernel picks the port",
    ]


def test_faults_of_a_password_file(tmp_path: Path) -> None:
    """It must be there, have a line, and belong to an engine with passwords."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "empty").chmod(0o600)
    zookeeper = "engine = zookeeper://a/p\n"
    nowhere = f"password_file: found '{tmp_path}/none', expected a file that can be read: No such file or directory"
    empty = f"password_file: found nothing in the first line of '{tmp_path}/empty', expected a password"
    assert faults(tmp_path, f"{zookeeper}password_file = none\n") == [nowhere]
    assert faults(tmp_path, f"{zookeeper}password_file = empty\n") == [empty]
    beside = "password_file: found a file beside a file engine, which has no password"
    assert faults(tmp_path, "engine = file:lead\npassword_file = empty\n") == [beside]


def test_faults_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, one that is not there, and one that other machines write to."""
    nowhere = f"engine: found 'file:{tmp_path}/no/lead', expected a path in a folder that exists: '{tmp_path}/no'"
    assert faults(tmp_path, "engine = file:no/lead\n") == [nowhere]
    (tmp_path / "lead").mkdir()
    assert faults(tmp_path, "engine = file:lead\n") == [
        f"engine: found the folder '{tmp_path}/lead', expected the path of a file"
    ]
    monkeypatch.setattr(leadership, "file_system_of", lambda path: "nfs4")
    network = (
        f"engine: found 'file:{tmp_path}/x' on the file system nfs4, expected one of this machine, whose clock counts"
    )
    assert faults(tmp_path, "engine = file:x\n") == [network]


def test_a_library_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the way to install it."""
    monkeypatch.setattr(leadership, "find_spec", lambda name: None)
    problem = "found 'zookeeper://a:2181/p', expected a file, or kazoo: pip install 'rpccluster[zookeeper]'"
    assert faults(tmp_path, "engine = zookeeper://a/p\n") == [f"engine: {problem}"]
