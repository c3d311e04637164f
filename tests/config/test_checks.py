"""The checks against the machine: each fault is found, names its option, and nothing is created."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpccluster.address import UnixAddress, parse_address, parse_bind
from rpccluster.config import CPUChoice, Machine, Options, Sources, load
from rpccluster.config.checks import distrusted
from rpccluster.config.origin import File
from rpccluster.config.sections.cluster import complaints
from rpccluster.errors import ConfigError

ROOT = Machine(euid=0, egid=0, allowed_cpus=lambda: {0, 1, 2, 5})
MORTAL = Machine(euid=1000, egid=1000, allowed_cpus=lambda: {0})


def problems(machine: Machine = ROOT, config: str | None = None, **values: Any) -> list[tuple[str, str]]:
    """Key and problem of each complaint about a cluster that is otherwise fine."""
    found = complaints(Options(service="a:b", **values), machine, config)
    assert all(complaint.problem.startswith("found ") and ", expected " in complaint.problem for complaint in found)
    return [(complaint.keys[0], complaint.problem) for complaint in found]


def test_the_defaults_are_fine() -> None:
    """A file with nothing but a service has no fault, whoever starts it."""
    assert problems() == problems(MORTAL) == []


def test_single_instance_needs_a_pidfile() -> None:
    """true without a pidfile is a fault."""
    assert problems(single_instance=True) == [
        ("single_instance", "found true without a pidfile, expected false or a pidfile")
    ]


def test_there_must_be_something_to_listen_on(tmp_path: Path) -> None:
    """An empty bind alone is a fault; with a Unix socket it is not."""
    assert problems(bind=()) == [("bind", "found no address, expected one, or a unix_socket")]
    assert problems(bind=(), unix_socket=f"{tmp_path}/x") == []


def test_an_address_may_stand_once() -> None:
    """Each address that is repeated is named once."""
    binds = ["a:1", "tcp://a:1", "b:2", "a:1", "unix:///tmp/x.sock", "unix:///tmp/x.sock"]
    assert problems(bind=tuple(map(parse_address, binds))) == [
        ("bind", "found tcp://a:1 twice, expected it once"),
        ("bind", "found unix:///tmp/x.sock twice, expected it once"),
    ]


def test_a_path_serves_one_purpose(tmp_path: Path) -> None:
    """No two of pidfile, sockets and logs share a path, in whatever words."""
    path = str(tmp_path / "x")
    (tmp_path / "link").symlink_to(tmp_path)
    found = problems(
        pidfile=path,
        control_socket=f"{tmp_path}/link/x",
        bind=(UnixAddress(path),),
        unix_socket=path,
        log_file=path,
        access_log=path,
    )
    assert [key for key, _ in found] == ["control_socket", "bind", "unix_socket", "log_file", "access_log"]
    assert found[-1] == ("access_log", f"found {path!r}, which is pidfile too, expected another path")


def test_the_configuration_file_is_never_written(tmp_path: Path) -> None:
    """A log file of that name would destroy it."""
    path = tmp_path / "x.ini"
    path.touch()
    assert problems(config=str(path), log_file=str(path)) == [
        ("log_file", f"found {str(path)!r}, which is the configuration file too, expected another path")
    ]


@pytest.mark.parametrize(
    ("binds", "is_fine"),
    [
        ("0.0.0.0:1 127.0.0.1:1", False),
        ("127.0.0.1:1 0.0.0.0:1", False),
        ("[::]:1 [::1]:1", False),
        ("[::1]:1 [0:0::1]:1", False),
        ("0.0.0.0:1 [::]:1", True),
        ("0.0.0.0:1 127.0.0.1:2", True),
        ("0.0.0.0:0 127.0.0.1:0", True),
        ("127.0.0.1:1 127.0.0.2:1", True),
        ("fd://web fd://api", True),
        ("fd:// fd://api", False),
        ("fd:// 127.0.0.1:1", True),
        ("0.0.0.0:1 localhost:1", True),  # which listen(2) refuses, if it comes to that
    ],
)
def test_addresses_that_overlap_are_a_fault(binds: str, is_fine: bool) -> None:
    """They could be bound, but not listened at."""
    one, two = map(parse_bind, binds.split())
    expected = [] if is_fine else [("bind", f"found {two} beside {one}, expected one of them: they overlap")]
    assert problems(bind=(one, two)) == expected


def test_devices_may_be_shared() -> None:
    """Both logs may go to /dev/null."""
    assert problems(log_file="/dev/null", access_log="/dev/null") == []


@pytest.mark.parametrize("key", ["user", "group"])
def test_accounts_must_be_known(key: str) -> None:
    """An unknown account is a fault, and the fault says what would do."""
    ((found, problem),) = problems(ROOT, **{key: "no-such-account"})
    assert found == key
    assert problem.startswith(f"found 'no-such-account', expected a {key} of this machine")


@pytest.mark.parametrize("key", ["user", "group"])
def test_only_root_can_change_its_account(key: str) -> None:
    """Anyone else may name the account he has, and no other."""
    assert problems(MORTAL, **{key: "33"}) == [(key, f"found '33', expected nothing: only root can change its {key}")]
    assert problems(MORTAL, **{key: "1000"}) == []
    assert problems(ROOT, **{key: "33"}) == []


@pytest.mark.parametrize(
    ("cpus", "problem"),
    [
        ((0, 1, 5, 0), ""),
        ((0, 3, 4, 7), "found 3-4,7, expected CPUs this process may run on: 0-2,5"),
    ],
)
def test_cpus_must_be_allowed(cpus: tuple[int, ...], problem: str) -> None:
    """A CPU outside the allowed set is an error at start."""
    assert problems(cpu_affinity=CPUChoice("list", cpus)) == ([("cpu_affinity", problem)] if problem else [])


def test_cpus_are_asked_for_only_if_a_list_names_some() -> None:
    """The question costs something where the interpreter has no answer of its own."""
    machine = Machine(0, 0, allowed_cpus=lambda: pytest.fail("asked"))
    assert problems(machine, cpu_affinity=CPUChoice("auto")) == []


def test_folders_must_exist(tmp_path: Path) -> None:
    """Each missing folder is named."""
    (tmp_path / "file").touch()
    found = problems(pythonpath=(str(tmp_path), "/no/lib", f"{tmp_path}/file"), chdir="/no/work")
    assert found == [
        ("pythonpath", "found '/no/lib', expected a folder that exists"),
        ("pythonpath", f"found '{tmp_path}/file', expected a folder that exists"),
        ("chdir", "found '/no/work', expected a folder that exists"),
    ]


PATH_KEYS = ["pidfile", "control_socket", "unix_socket", "log_file", "access_log", "bind"]


def at(key: str, path: object) -> dict[str, Any]:
    return {key: (UnixAddress(str(path)),) if key == "bind" else str(path)}


@pytest.mark.parametrize("key", PATH_KEYS)
def test_missing_folders_are_fine_and_stay_missing(tmp_path: Path, key: str) -> None:
    """The program makes the folders; the check makes nothing."""
    assert problems(**at(key, tmp_path / "a" / "b" / "x")) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", PATH_KEYS)
@pytest.mark.parametrize("rest", ["x", "a/b/x"])
def test_a_file_is_no_folder(tmp_path: Path, key: str, rest: str) -> None:
    """A path below a file can't be made, even by root."""
    file = tmp_path / "file"
    file.touch()
    assert problems(**at(key, file / rest)) == [
        (key, f"found '{file}/{rest}', expected a path in a folder: '{file}' is none")
    ]


@pytest.mark.parametrize("key", PATH_KEYS)
def test_a_folder_is_no_file(tmp_path: Path, key: str) -> None:
    """A path that is a folder is refused."""
    ((found, problem),) = problems(**at(key, tmp_path))
    assert found == key
    assert str(tmp_path) in problem


@pytest.mark.parametrize("key", PATH_KEYS)
def test_a_dangling_link_is_no_folder(tmp_path: Path, key: str) -> None:
    """What makedirs would stumble over is found before."""
    (tmp_path / "link").symlink_to("nowhere")
    assert [found for found, _ in problems(**at(key, tmp_path / "link" / "x"))] == [key]


@pytest.mark.parametrize("key", ["control_socket", "unix_socket", "bind"])
def test_a_file_is_never_taken_for_a_stale_socket(tmp_path: Path, key: str) -> None:
    """Binding removes a stale socket: never somebody's file."""
    file = tmp_path / "precious"
    file.touch()
    assert problems(**at(key, file)) == [(key, f"found '{file}', which is there and no socket, expected a free path")]


@pytest.mark.parametrize("key", ["control_socket", "unix_socket", "bind"])
def test_a_stale_socket_is_fine(tmp_path: Path, key: str) -> None:
    """What a killed master left behind never blocks a start."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "x"))
    assert problems(**at(key, tmp_path / "x")) == []


@pytest.mark.parametrize("key", ["pidfile", "log_file", "access_log"])
def test_a_file_that_is_there_is_fine(tmp_path: Path, key: str) -> None:
    """A stale pidfile or an old log never blocks a start."""
    (tmp_path / "x").touch()
    assert problems(**at(key, tmp_path / "x")) == []


@pytest.mark.parametrize("key", ["control_socket", "unix_socket"])
@pytest.mark.parametrize(("length", "fits"), [(107, True), (108, False)])
def test_a_path_must_fit_a_unix_socket(key: str, length: int, fits: bool) -> None:
    """sun_path holds 107 bytes and a NUL: unix(7)."""
    path = "/tmp/" + "x" * (length - 5)
    found = problems(**at(key, path))
    assert found == ([] if fits else [(key, f"found the path {path!r}, expected at most 107 bytes")])


@contextlib.contextmanager
def as_mortal() -> Iterator[Path]:
    """A folder that this process may pass through but not write, as a user whom that stops."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.parametrize("key", PATH_KEYS)
@pytest.mark.parametrize("rest", ["x", "a/b/x"])
def test_a_folder_must_be_writable(key: str, rest: str) -> None:
    """What this user may not create is found before the start, wherever the missing folders begin."""
    with as_mortal() as folder:
        expected = f"expected a path in a folder that this user may write: '{folder}' is none"
        assert problems(**at(key, folder / rest)) == [(key, f"found '{folder}/{rest}', {expected}")]


@pytest.mark.parametrize("key", ["pidfile", "log_file", "access_log"])
def test_a_file_must_be_writable_but_its_folder_need_not(key: str) -> None:
    """An existing file is only rewritten or appended to."""
    with as_mortal():
        assert problems(**at(key, "/etc/hostname")) == [
            (key, "found '/etc/hostname', expected a file that this user may write")
        ]
        assert problems(**at(key, "/dev/null")) == []


def test_max_requests_jitter_may_stand_alone() -> None:
    """It means nothing without max_requests, and harms nobody."""
    assert problems(max_requests_jitter=5) == []


def test_everything_is_reported_at_once() -> None:
    """No check hides another one."""
    found = problems(
        MORTAL,
        bind=(),
        single_instance=True,
        user="no-such-account",
        group="0",
        cpu_affinity=CPUChoice("list", (7,)),
        chdir="/nowhere",
        log_file="/tmp",
        control_socket="/dev/null/x",
    )
    keys = ["single_instance", "bind", "user", "group", "cpu_affinity", "chdir", "control_socket", "log_file"]
    assert [key for key, _ in found] == keys


# -- files that say what root runs


def distrust(*paths: Path, machine: Machine = ROOT) -> list[str]:
    """What is said of these files of the configuration."""
    return [problem for _, problem in distrusted([File(str(path), path.name) for path in paths], machine)]


def test_only_root_may_say_what_root_runs(tmp_path: Path) -> None:
    """Neither a file nor its folder may be another's to write, also where a link leads to."""
    fine, open_one = tmp_path / "fine.ini", tmp_path / "open.ini"
    fine.write_text("")
    open_one.write_text("")
    open_one.chmod(0o602)
    expected = "expected one that only root may"
    assert distrust(fine) == []
    assert distrust(fine, open_one) == [f"found '{open_one}', which everybody may write, {expected}"]
    assert distrust(open_one, machine=MORTAL) == []
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "link.ini").symlink_to(fine)
    (shared / "x.ini").write_text("")
    (tmp_path / "there.ini").symlink_to(shared / "x.ini")
    told = f"found '{shared}', which everybody may write, {expected}"
    assert distrust(shared / "link.ini") == distrust(shared / "x.ini") == distrust(tmp_path / "there.ini") == [told]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_account_is_no_word_of_roots(tmp_path: Path) -> None:
    """Its owner may write it; so may the members of its group, if the mode says so."""
    path = tmp_path / "x.ini"
    path.write_text("")
    os.chown(path, 65534, 0)
    assert distrust(path) == [f"found '{path}', which user 65534 may write, expected one that only root may"]
    os.chown(path, 0, 65534)
    assert distrust(path) == []
    path.chmod(0o620)
    assert distrust(path) == [f"found '{path}', which group 65534 may write, expected one that only root may"]
    os.chown(path, 0, 0)
    assert distrust(path) == []


def test_a_distrusted_file_is_a_fault_of_the_start(tmp_path: Path) -> None:
    """With the name that the user gave it; also an included one."""
    (tmp_path / "x.ini").write_text("[cluster]\nservice = a:b\ninclude = y.ini\n")
    (tmp_path / "y.ini").write_text("[plugin:x]\nrun = a:b\n")
    (tmp_path / "y.ini").chmod(0o666)
    with pytest.raises(ConfigError) as raised:
        load(Sources("x.ini", start_folder=str(tmp_path)), ROOT)
    (fault,) = raised.value.faults
    assert fault.startswith(f"y.ini:1: config: found '{tmp_path}/y.ini', which everybody may write")
