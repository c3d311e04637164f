"""The sections ``[pool:NAME]``: every key of the contract, its default, and what it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rpccluster.config import CPU_AUTO, Configuration, Machine, Options, Sources, load
from rpccluster.config.cpus import CPU_INHERITED, default_workers
from rpccluster.config.sections.pool import POOL, PoolOptions, with_cluster
from rpccluster.errors import ConfigError

MACHINE = Machine(euid=0, egid=0, allowed_cpus=lambda: {0})
DEFAULTS: dict[str, Any] = {
    "processes": default_workers(),
    "spare": 1,
    "targets": (),
    "queue": "",
    "queue_size": 1000,
    "timeout": 0.0,
    "soft_timeout": 0.0,
    "max_memory": 0,
    "max_tasks": 0,
    "max_tasks_jitter": 0,
    "max_lifetime": 0.0,
    "restart_delay": 1.0,
    "restart_delay_max": 30.0,
    "stop_timeout": 10.0,
    "leader_only": False,
    "user": "",
    "group": "",
    "nice": None,
    "cpu_affinity": CPU_INHERITED,
    "env": {},
}


def loaded(folder: Path, text: str) -> Configuration:
    """The configuration that a file with ``text`` makes."""
    (folder / "x.ini").write_text(text)
    return load(Sources("x.ini", start_folder=str(folder)), MACHINE)


def pool(folder: Path, text: str) -> PoolOptions:
    """The options of a pool with the lines of ``text``."""
    found: PoolOptions = loaded(folder, f"[cluster]\n[pool:x]\n{text}").others["pool:x"]
    return found


def faults(folder: Path, text: str) -> list[str]:
    """What is wrong with a pool with the lines of ``text``."""
    with pytest.raises(ConfigError) as raised:
        pool(folder, text)
    return raised.value.faults


def test_every_key_of_the_contract_is_an_option_and_no_other() -> None:
    """The list of pools is complete."""
    assert set(POOL.options) == set(DEFAULTS)


@pytest.mark.parametrize(("key", "value"), DEFAULTS.items())
def test_defaults_are_those_of_the_contract(key: str, value: object) -> None:
    """Each default, in the type that users of `PoolOptions` read; a file can say it."""
    found, option = getattr(PoolOptions(), key), POOL.options[key]
    assert found == value
    if not option.is_family:
        assert type(found) is type(value)
        assert option.type.parse(option.type.write(found)) == value


@pytest.mark.parametrize("key", DEFAULTS)
def test_every_option_says_what_it_means_in_one_line(key: str) -> None:
    """The comments of etc/pools.ini come from here."""
    meaning = POOL.options[key].meaning
    assert meaning
    assert "\n" not in meaning
    assert len(meaning) < 100
    assert not meaning.endswith(".")


def test_targets_are_modules_and_functions(tmp_path: Path) -> None:
    """In any order, with a method of a class among them."""
    assert pool(tmp_path, "targets = images.resize, mail:send, mail:Post.send").targets == (
        "images.resize", "mail:send", "mail:Post.send"
    )  # fmt: skip


@pytest.mark.parametrize("text", ["mail:", ":send", "mail send", "mail.py/send", "a..b", "1a"])
def test_a_target_of_another_form_is_a_fault(tmp_path: Path, text: str) -> None:
    """With what was expected."""
    expected = "expected modules, or module:function, separated by commas"
    assert faults(tmp_path, f"targets = {text}\n") == [f"x.ini:3: targets: found {text!r}, {expected}"]


def test_what_does_not_fit_together(tmp_path: Path) -> None:
    """The soft limit comes first; a jitter needs what it is of; a queue needs one function."""
    assert faults(tmp_path, "timeout = 5\nsoft_timeout = 5\n") == [
        "x.ini:4: soft_timeout: found 5, expected less than timeout, which is 5"
    ]
    assert faults(tmp_path, "max_tasks_jitter = 5\n") == [
        "x.ini:3: max_tasks_jitter: found it without max_tasks, expected both, or neither"
    ]
    (first, second) = faults(tmp_path, "targets = mail\nqueue = mails\n")
    assert first == (
        "x.ini:3: targets: found a queue, expected one module:function in targets, which is called with each item"
    )
    assert second == "x.ini:4: queue: found 'mails', expected nothing: there is no section [queue:mails]"
    assert faults(tmp_path, "leader_only = true\n") == [
        "x.ini:3: leader_only: found true, expected false: there is no section [leadership]"
    ]


def test_what_a_pool_has_from_the_cluster() -> None:
    """Account, folder, CPUs, path and service; its own account goes before."""
    cluster = Options(
        service="a:B", user="www", group="web", chdir="/srv", umask=0o27, pythonpath=("/lib",), cpu_affinity=CPU_AUTO
    )
    found = with_cluster(PoolOptions(), cluster)
    assert (found.user, found.group, found.chdir, found.umask) == ("www", "web", "/srv", 0o27)
    assert (found.pythonpath, found.cpu_affinity, found.service) == (("/lib",), CPU_AUTO, "a:B")
    assert with_cluster(PoolOptions(user="tasks"), cluster).group == ""


def test_a_cluster_may_have_nothing_but_a_pool(tmp_path: Path) -> None:
    """It does something; what only workers use is a fault there, and others may come after it."""
    assert loaded(tmp_path, "[cluster]\nproc_name = x\n[pool:x]\n").options.service == ""
    text = "[cluster]\ntimeout = 5\n[pool:x]\n"
    with pytest.raises(ConfigError, match="found a value without a service"):
        loaded(tmp_path, text)
    after = "[cluster]\n[plugin:y]\nrun = a:b\nafter = pools, pool:x\n[pool:x]\n"
    assert loaded(tmp_path, after).others["plugin:y"].after == ("pools", "pool:x")
