"""What sections must be to each other: their order, addresses and files; a cluster without workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpccluster.config import Configuration, Machine, Sources, load
from rpccluster.errors import ConfigError

MACHINE = Machine(euid=0, egid=0, allowed_cpus=lambda: {0})
CLUSTER = "[cluster]\nservice = a:b\n"


def loaded(folder: Path, text: str, **flags: str) -> Configuration:
    """The configuration that a file with ``text`` makes."""
    (folder / "x.ini").write_text(text)
    return load(Sources("x.ini", flags=flags, start_folder=str(folder)), MACHINE)


def faults(folder: Path, text: str, **flags: str) -> list[str]:
    """What is wrong with it."""
    with pytest.raises(ConfigError) as raised:
        loaded(folder, text, **flags)
    return raised.value.faults


def plugin(name: str, **options: object) -> str:
    """A plugin's section; the first option stands three lines below its header's line."""
    return f"[plugin:{name}]\nrun = a:b\n" + "".join(f"{key} = {value}\n" for key, value in options.items())


# -- order


def test_who_comes_after_whom(tmp_path: Path) -> None:
    """Groups and plugins by their names; what needs no prefix may have one."""
    text = f"{CLUSTER}after = dict\n{plugin('dict')}{plugin('late', after='workers, plugin:dict')}"
    found = loaded(tmp_path, text)
    assert found.options.after == ("plugin:dict",)
    assert found.others["plugin:late"].after == ("workers", "plugin:dict")


@pytest.mark.parametrize(
    ("after", "hint"),
    [
        ("dcit", "'plugin:dcit', expected a group or a plugin that is there; did you mean dict?"),
        ("queues", "'queues', expected a group or a plugin that is there"),
        ("worker", "'plugin:worker', expected a group or a plugin that is there; did you mean workers?"),
        ("pool:dict", "'pool:dict', expected a group or a plugin that is there; did you mean dict?"),
    ],
)
def test_after_names_somebody(tmp_path: Path, after: str, hint: str) -> None:
    """The nearest name is suggested."""
    assert faults(tmp_path, f"{CLUSTER}{plugin('dict')}{plugin('x', after=after)}") == [f"x.ini:7: after: found {hint}"]
    assert faults(tmp_path, f"{CLUSTER}after = {after}\n{plugin('dict')}") == [f"x.ini:3: after: found {hint}"]


def test_a_section_that_cannot_be_read_may_be_the_one(tmp_path: Path) -> None:
    """No second fault follows from the first; what else is wrong is told."""
    found = faults(tmp_path, f"{CLUSTER}include = gone.ini\n[plugin:b b]\n{plugin('a', after='b', leader_only='true')}")
    assert [fault.split(": ")[1] for fault in found] == ["include", "[plugin:b b]", "leader_only"]


def test_the_workers_are_nobody_without_a_service(tmp_path: Path) -> None:
    """Nothing would ever be ready."""
    (fault,) = faults(tmp_path, "[cluster]\n" + plugin("x", after="workers"))
    assert fault.startswith("x.ini:4: after: found 'workers', expected a group or a plugin that is there")


@pytest.mark.parametrize(
    ("afters", "circles"),
    [
        ({"a": "a"}, ["4: after: found the circle plugin:a after plugin:a"]),
        ({"a": "b", "b": "a"}, ["4: after: found the circle plugin:a after plugin:b after plugin:a"]),
        ({"a": "b,c", "b": "d", "c": "d", "d": "e", "e": ""}, []),
        (
            {"x": "a", "a": "b", "b": "c", "c": "a"},
            ["7: after: found the circle plugin:a after plugin:b after plugin:c after plugin:a"],
        ),
    ],
)
def test_a_circle_is_told_once(tmp_path: Path, afters: dict[str, str], circles: list[str]) -> None:
    """With all that belong to it, at the first of them."""
    text = "[cluster]\n" + "".join(plugin(name, after=after) for name, after in afters.items())
    if circles:
        assert faults(tmp_path, text) == [f"x.ini:{circle}, expected an order" for circle in circles]
    else:
        loaded(tmp_path, text)


def test_the_workers_may_close_a_circle(tmp_path: Path) -> None:
    """The fault stands at the key of [cluster]."""
    (fault,) = faults(tmp_path, f"{CLUSTER}after = a\n{plugin('a', after='workers')}")
    assert fault == "x.ini:3: after: found the circle plugin:a after workers after plugin:a, expected an order" or (
        fault == "x.ini:6: after: found the circle plugin:a after workers after plugin:a, expected an order"
    )


# -- what two cannot have


def test_no_address_is_two_sections(tmp_path: Path) -> None:
    """The same port, or one that overlaps; each asks for a port of its own with 0."""
    text = f"{CLUSTER}bind = 127.0.0.1:7000, 127.0.0.1:0\nunix_socket = /tmp/x.sock\n"
    text += plugin("a", bind="0.0.0.0:7000, 127.0.0.1:0, unix:///tmp/x.sock, 127.0.0.1:7001")
    assert faults(tmp_path, text + plugin("b", bind="127.0.0.1:7001, [::]:7001, 127.0.0.1:0")) == [
        "x.ini:7: bind: found tcp://0.0.0.0:7000 beside tcp://127.0.0.1:7000 of [cluster], expected another",
        "x.ini:7: bind: found unix:///tmp/x.sock beside unix:///tmp/x.sock of [cluster], expected another",
        "x.ini:10: bind: found tcp://127.0.0.1:7001 beside tcp://127.0.0.1:7001 of [plugin:a], expected another",
    ]
    assert faults(tmp_path, CLUSTER + plugin("a", bind="127.0.0.1:1, 127.0.0.1:1, 0.0.0.0:1")) == [
        "x.ini:5: bind: found tcp://127.0.0.1:1 twice, expected it once",
        "x.ini:5: bind: found tcp://0.0.0.0:1 beside tcp://127.0.0.1:1, expected one of them: they overlap",
    ]


def test_the_workers_default_address_is_nobodys_without_them(tmp_path: Path) -> None:
    """A cluster of plugins alone listens at its plugins' addresses."""
    found = loaded(tmp_path, "[cluster]\n" + plugin("a", bind="127.0.0.1:18800"))
    assert found.options.listen_addresses == ()
    assert "found tcp://127.0.0.1:18800" in faults(tmp_path, CLUSTER + plugin("a", bind="127.0.0.1:18800"))[0]


def test_a_log_may_have_several_writers_unless_it_is_rotated(tmp_path: Path) -> None:
    """And is nothing else: neither the pidfile nor a file of the configuration, by whatever name."""
    shared = "[DEFAULT]\nlog_file = all.log\n"
    loaded(tmp_path, f"{shared}{CLUSTER}{plugin('a')}{plugin('b')}")
    (tmp_path / "link").symlink_to("all.log")
    rotating = plugin("a", log_file="link", log_max_size="1M")
    assert faults(tmp_path, f"{CLUSTER}{plugin('b', log_file='all.log')}{rotating}") == [
        f"x.ini:8: log_file: found '{tmp_path}/link', which is log_file of [plugin:b], too, expected another path"
    ]
    (fault,) = faults(tmp_path, f"{CLUSTER}pidfile = x.pid\n{plugin('b', log_file='x.pid')}")
    assert fault.endswith("which is pidfile, too, expected another path")
    (fault,) = faults(tmp_path, f"{CLUSTER}{plugin('b', log_file='x.ini')}")
    assert fault.endswith("which is a file of the configuration, too, expected another path")
    loaded(tmp_path, f"{CLUSTER}{plugin('a', log_file='/dev/null', log_max_size=1)}{plugin('b', log_file='/dev/null')}")


def test_nothing_leads_yet(tmp_path: Path) -> None:
    """A plugin that waits for the lead would wait for ever."""
    (fault,) = faults(tmp_path, CLUSTER + plugin("a", leader_only="true"))
    assert fault == "x.ini:5: leader_only: found true, expected false: there is no section [leadership]"


# -- without workers


def test_a_cluster_of_plugins_needs_no_service(tmp_path: Path) -> None:
    """It has no workers then; what serves other processes, too, may stand there."""
    text = "[cluster]\npythonpath = .\nuser = root\ncpu_affinity = 0\ngraceful_timeout = 5\nlog_level = debug\n"
    found = loaded(tmp_path, text + plugin("a")).options
    assert (found.service, found.number_workers, found.listen_addresses) == ("", 0, ())
    assert faults(tmp_path, "[cluster]\n") == [
        "x.ini:1: service: found nothing, expected module:Class or module:object",
    ]


def test_a_key_of_workers_is_a_fault_without_a_service(tmp_path: Path) -> None:
    """In [cluster] or as a flag; in [DEFAULT] a plugin's may be meant."""
    text = f"[DEFAULT]\nmax_memory = 1G\n[cluster]\nmax_requests = 5\ntimeout = 3\n{plugin('a')}"
    assert faults(tmp_path, text, number_workers="2", bind="127.0.0.1:1") == [
        "x.ini:4: max_requests: found a value without a service, expected none: only workers use it",
        "x.ini:5: timeout: found a value without a service, expected none: only workers use it",
        "flag --bind: bind: found a value without a service, expected none: only workers use it",
        "flag --workers: number_workers: found a value without a service, expected none: only workers use it",
    ]
