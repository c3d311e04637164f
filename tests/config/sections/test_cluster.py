"""The options as data: that every key of the contract is there, and that what is said of it holds together."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from rpccluster.address import TCPAddress, UnixAddress
from rpccluster.config import CPU_NONE, OPTIONS, Effect, Options
from rpccluster.config.authkeys import NO_KEYS
from rpccluster.config.cpus import default_workers

DEFAULTS = {
    "service": "",
    "pythonpath": (),
    "include": (),
    "bind": (TCPAddress("127.0.0.1", 18800),),
    "unix_socket": "",
    "unix_socket_mode": 0o600,
    "backlog": 2048,
    "authkey_file": NO_KEYS,
    "auth_timeout": 5.0,
    "proxy_from": "loopback",
    "after": (),
    "engine": "auto",
    "crash_safe": True,
    "expose": "public",
    "accept_lock": True,
    "cpu_affinity": CPU_NONE,
    "max_requests": 0,
    "max_requests_jitter": 0,
    "max_memory": 0,
    "max_lifetime": 0.0,
    "timeout": 30.0,
    "graceful_timeout": 30.0,
    "restart_delay": 1.0,
    "restart_delay_max": 30.0,
    "call_timeout": 0.0,
    "stall_warning": 0.2,
    "max_greenlets": 1000,
    "threads": 8,
    "thread_queue": 100,
    "worker_connections": 10000,
    "max_pending_calls": 1024,
    "max_message_size": 16 * 1024 * 1024,
    "idle_timeout": 0.0,
    "message_timeout": 30.0,
    "write_timeout": 60.0,
    "rebalance": True,
    "reload_on_change": False,
    "reload_code": False,
    "settings_timeout": 5.0,
    "max_depth": 100,
    "cancel_on_disconnect": False,
    "tcp_keepalive": 60,
    "pidfile": "",
    "single_instance": False,
    "control_socket": "",
    "daemonize": False,
    "proc_name": "rpccluster",
    "user": "",
    "group": "",
    "umask": None,
    "chdir": "",
    "log_file": "",
    "log_level": "info",
    "log_format": "text",
    "access_log": "off",
}
CONTRACT = [*DEFAULTS, "number_workers"]


def test_every_key_of_the_contract_is_an_option_and_no_other() -> None:
    """The configuration table is complete."""
    assert sorted(OPTIONS) == sorted(CONTRACT)
    assert list(OPTIONS) == [field.name for field in dataclasses.fields(Options) if "option" in field.metadata]


@pytest.mark.parametrize(("key", "value"), DEFAULTS.items())
def test_defaults_are_those_of_the_contract(key: str, value: object) -> None:
    """Each default is the table's, in the type that users of `Options` read."""
    found = getattr(Options(), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("key", [key for key, option in OPTIONS.items() if option.compute is None])
def test_a_default_can_be_written_in_a_file(key: str) -> None:
    """What etc/cluster.ini shows as a default reads as that default; "(needed)" has none."""
    option = OPTIONS[key]
    if key != "service":
        assert option.type.parse(option.default_text) == option.default == getattr(Options(), key)


@pytest.mark.parametrize("key", CONTRACT)
def test_every_option_says_what_it_means_in_one_line(key: str) -> None:
    """The comments of etc/cluster.ini come from here."""
    meaning = OPTIONS[key].meaning
    assert meaning
    assert "\n" not in meaning
    assert len(meaning) < 100
    assert not meaning.endswith(".")


def test_what_a_hup_cannot_change() -> None:
    """The contract's five, and single_instance, whose lock is held for the master's life."""
    fixed = {key for key, option in OPTIONS.items() if option.effect is Effect.RESTART}
    assert fixed == {"user", "group", "daemonize", "pidfile", "control_socket", "single_instance"}


def test_flags_are_gunicorns() -> None:
    """The flags of the contract that set an option, each once."""
    flags = {key: option.flags for key, option in OPTIONS.items() if option.flags}
    assert flags == {
        "pythonpath": ("--pythonpath",),
        "bind": ("-b", "--bind"),
        "number_workers": ("-w", "--workers"),
        "pidfile": ("-p", "--pid"),
        "control_socket": ("--control",),
        "reload_code": ("--reload",),
        "daemonize": ("-D", "--daemon"),
        "proc_name": ("-n", "--name"),
        "user": ("-u", "--user"),
        "group": ("-g", "--group"),
        "chdir": ("--chdir",),
        "log_file": ("--log-file",),
        "log_level": ("--log-level",),
    }


def test_number_workers_defaults_to_the_cpus_at_hand() -> None:
    """One worker for each CPU this process may use; without a service none."""
    assert Options(service="a:b").number_workers == default_workers()
    assert Options().number_workers == 0
    assert Options(number_workers=7).number_workers == 7


def test_single_instance_follows_the_pidfile() -> None:
    """It defaults to true if a pidfile is set, and can be set apart from it."""
    assert Options(pidfile="/run/x.pid").single_instance is True
    assert Options(pidfile="/run/x.pid", single_instance=False).single_instance is False
    assert Options(single_instance=True).single_instance is True


def test_options_are_frozen() -> None:
    """A configuration is replaced as a whole, never half applied."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().backlog = 1  # type: ignore[misc]


def test_listen_addresses_add_the_unix_socket() -> None:
    """`unix_socket` is one more address; without a service there is none."""
    tcp = TCPAddress("127.0.0.1", 1)
    assert Options("a:b", bind=(tcp,)).listen_addresses == (tcp,)
    assert Options("a:b", bind=(tcp,), unix_socket="/x").listen_addresses == (tcp, UnixAddress("/x"))
    assert Options("a:b", bind=()).listen_addresses == ()
    assert Options(bind=(tcp,)).listen_addresses == ()


def test_importing_the_configuration_is_cheap() -> None:
    """`status` and the like start fast: no framework, no psutil and no gevent comes along."""
    script = "import sys, rpccluster.config; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "rpccluster.config.sections.cluster" in loaded
    assert not {"click", "psutil", "gevent", "asyncio", "msgpack", "difflib", "subprocess"} & set(loaded)
