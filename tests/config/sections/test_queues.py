"""The sections ``[queues]`` and ``[queue:NAME]``: every key of the contract, its default, its faults, and the path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rpccluster.config import Configuration, Machine, Sources, load
from rpccluster.config.kept_queues import kept_queues
from rpccluster.config.sections.queues import QUEUE, QUEUES, QueueOptions, QueuesOptions
from rpccluster.errors import ConfigError

MACHINE = Machine(euid=0, egid=0, allowed_cpus=lambda: {0})
OF_QUEUES: dict[str, Any] = {
    "engine": "sqlite",
    "password_file": "",
    "path": "",
    "durable": "always",
    "bind": (),
    "create": False,
    "session_grace": 5.0,
    "max_message_size": 16 << 20,
    "max_pending_calls": 32768,
    "restart_delay": 1.0,
    "restart_delay_max": 30.0,
}
OF_QUEUE: dict[str, Any] = {
    "lease": 60.0,
    "max_attempts": 5,
    "max_size": 0,
    "max_bytes": 0,
    "expires": 0.0,
    "dedup_window": 300.0,
}


def loaded(folder: Path, text: str) -> Configuration:
    """The configuration of a file with ``text``."""
    (folder / "x.ini").write_text(text)
    return load(Sources("x.ini", start_folder=str(folder)), MACHINE)


def test_every_key_has_the_contracts_default() -> None:
    """And there is no other key."""
    assert {key: getattr(QueuesOptions(), key) for key in QUEUES.options} == OF_QUEUES
    assert {key: getattr(QueueOptions(), key) for key in QUEUE.options} == OF_QUEUE


def test_a_cluster_may_keep_queues_alone(tmp_path: Path) -> None:
    """Without a service; with one queue alone ``[queues]`` has its defaults, and the file lies beside the other."""
    kept = kept_queues(loaded(tmp_path, "[cluster]\n[queue:jobs]\nlease = 2\n"))
    assert kept.options == QueuesOptions()
    assert kept.queues == {"jobs": QueueOptions(lease=2.0)}
    assert kept.path == str(tmp_path / "queues.db")


def test_where_the_file_lies(tmp_path: Path) -> None:
    """Beside the pidfile, else beside the configuration; where the path says; nowhere with Redis."""
    beside = "[cluster]\npidfile = run/x.pid\n"
    (tmp_path / "run").mkdir()
    assert kept_queues(loaded(tmp_path, f"{beside}[queues]\n")).path == str(tmp_path / "run" / "queues.db")
    found = kept_queues(loaded(tmp_path, f"{beside}[queues]\npath = items.db\n"))
    assert found.path == str(tmp_path / "items.db")
    assert kept_queues(loaded(tmp_path, "[cluster]\n[queues]\nengine = redis://localhost:6379/2\n")).path == ""


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("[queues]\nengine = mysql", "engine: found 'mysql', expected sqlite or redis://HOST:PORT/DB"),
        (
            "[queues]\nengine = redis://:secret@h:1/2",
            "engine: found an engine with a password or a user, expected redis://HOST:PORT/DB and password_file",
        ),
        ("[queues]\ndurable = never", "durable: found 'never', expected always, second or os"),
        ("[queues]\npassword_file = x", "password_file: found a file beside the engine sqlite, which needs none"),
        ("[queue:a]\nlease = 0", "lease: found 0, expected more: a consumer would have no time for an item"),
        ("[queue:a]\nmax_attempts = 0", "max_attempts: found '0', expected a whole number, 1 to 2147483647"),
        ("[queue:a]\nleese = 1", "leese: found an unknown key, expected an option; did you mean lease?"),
    ],
)
def test_faults(tmp_path: Path, lines: str, fault: str) -> None:
    """Each names its line; no password is shown."""
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, f"[cluster]\n{lines}\n")
    assert raised.value.faults == [f"x.ini:3: {fault}"]


def test_a_path_beside_redis_is_a_fault(tmp_path: Path) -> None:
    """It would be created for nothing."""
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, "[cluster]\n[queues]\nengine = redis://h/1\npath = x\n")
    assert raised.value.faults == ["x.ini:4: path: found a path beside the engine redis://h/1, expected none"]


def test_other_hosts_need_a_key(tmp_path: Path) -> None:
    """Unless the address is one of loopback."""
    bound = "[queues]\nbind = tcp://127.0.0.1:7001, tcp://[::1]:7001, tcp://localhost:7003, tcp://0.0.0.0:7002\n"
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, f"[cluster]\n{bound}")
    expected = "expected authkey_file in [cluster], or loopback alone"
    assert raised.value.faults == [f"x.ini:3: bind: found an address that other hosts reach, {expected}"]
    (tmp_path / "keys").write_text("a-key-of-many-bytes\n")
    (tmp_path / "keys").chmod(0o600)
    assert len(loaded(tmp_path, f"[cluster]\nauthkey_file = keys\n{bound}").others["queues"].bind) == 4


def test_an_address_is_nobody_elses(tmp_path: Path) -> None:
    """Neither the workers' nor a plugin's."""
    text = "[cluster]\nservice = a:b\nbind = tcp://127.0.0.1:7001\n[queues]\nbind = tcp://127.0.0.1:7001\n"
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)
    found = "found tcp://127.0.0.1:7001 beside tcp://127.0.0.1:7001 of [cluster], expected another"
    assert raised.value.faults == [f"x.ini:5: bind: {found}"]


def test_what_runs_after_the_queues_may_say_so(tmp_path: Path) -> None:
    """The group has the name of its section, also without that section."""
    text = "[cluster]\n[queue:a]\n[plugin:p]\nrun = a:b\nafter = queues\n"
    assert loaded(tmp_path, text).others["plugin:p"].after == ("queues",)
