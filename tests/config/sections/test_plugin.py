"""The sections ``[plugin:NAME]``: every key of the contract, its default, and what it reads."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from rpccluster.address import TCPAddress, UnixAddress
from rpccluster.config import CPU_AUTO, CPU_NONE, Configuration, CPUChoice, Machine, Options, Sources, load
from rpccluster.config.cpus import CPU_INHERITED
from rpccluster.config.sections.plugin import PLUGIN, PluginOptions, with_cluster
from rpccluster.errors import ConfigError

MACHINE = Machine(euid=0, egid=0, allowed_cpus=lambda: {0})
CLUSTER = "[cluster]\nservice = a:b\n"
DEFAULTS: dict[str, Any] = {
    "run": "",
    "command": (),
    "args": (),
    "description": "",
    "processes": 1,
    "autostart": True,
    "restart": "always",
    "restart_delay": 1.0,
    "restart_delay_max": 30.0,
    "essential": False,
    "after": (),
    "ready": "started",
    "ready_timeout": 30.0,
    "stop_signal": signal.SIGTERM,
    "stop_timeout": 10.0,
    "timeout": 0.0,
    "max_memory": 0,
    "max_lifetime": 0.0,
    "overlap": "none",
    "schedule": "",
    "timezone": "",
    "bind": (),
    "reload_signal": None,
    "leader_only": False,
    "user": "",
    "group": "",
    "chdir": "",
    "umask": None,
    "nice": None,
    "cpu_affinity": CPU_INHERITED,
    "env": {},
    "log_file": "",
    "log_max_size": 0,
    "log_backups": 5,
}


def loaded(folder: Path, text: str, machine: Machine | None = MACHINE) -> Configuration:
    """The configuration that a file with ``text`` makes."""
    (folder / "x.ini").write_text(text)
    return load(Sources("x.ini", start_folder=str(folder)), machine)


def plugin(folder: Path, text: str) -> PluginOptions:
    """The options of a plugin with the lines of ``text``; nothing but their form is looked at."""
    found: PluginOptions = loaded(folder, f"{CLUSTER}[plugin:x]\n{text}", machine=None).others["plugin:x"]
    return found


def faults(folder: Path, text: str) -> list[str]:
    """What is wrong with a file."""
    with pytest.raises(ConfigError) as raised:
        loaded(folder, text)
    return raised.value.faults


def test_every_key_of_the_contract_is_an_option_and_no_other() -> None:
    """The table of plugins is complete."""
    assert set(PLUGIN.options) == set(DEFAULTS)


@pytest.mark.parametrize(("key", "value"), DEFAULTS.items())
def test_defaults_are_those_of_the_contract(key: str, value: object) -> None:
    """Each default is the table's, in the type that users of `PluginOptions` read; a file can say it."""
    found, option = getattr(PluginOptions(), key), PLUGIN.options[key]
    assert found == value == option.default
    if not option.is_family:
        assert type(found) is type(value)
        assert option.type.parse(option.default_text) == value


@pytest.mark.parametrize("key", DEFAULTS)
def test_every_option_says_what_it_means_in_one_line(key: str) -> None:
    """The comments of etc/plugins.ini come from here."""
    meaning = PLUGIN.options[key].meaning
    assert meaning
    assert "\n" not in meaning
    assert len(meaning) < 100
    assert not meaning.endswith(".")


@pytest.mark.parametrize(
    ("line", "value", "text"),
    [
        ("run = jobs.reminder:run", "jobs.reminder:run", "jobs.reminder:run"),
        ("command = /bin/sh -c 'echo $HOME; sleep 1'", ("/bin/sh", "-c", "echo $HOME; sleep 1"), None),
        ('args = {"every": [1, 2]}', ({"every": [1, 2]},), '{"every": [1, 2]}'),
        ("args = [true]", ([True],), "[true]"),
        ("args = 5", ("5",), "5"),
        ("restart = On-Failure", "on-failure", "on-failure"),
        ("after = queues, dict ,pool:x", ("queues", "plugin:dict", "pool:x"), "queues, plugin:dict, pool:x"),
        ("stop_signal = sigint", signal.SIGINT, "INT"),
        ("reload_signal = HUP", signal.SIGHUP, "HUP"),
        ("reload_signal = none", None, "none"),
        ("bind = :1", None, None),
        ("bind = h:1, unix:///tmp/s", (TCPAddress("h", 1), UnixAddress("/tmp/s")), "tcp://h:1, unix:///tmp/s"),
        ("nice = -5", -5, "-5"),
        ("cpu_affinity = auto", CPU_AUTO, "auto"),
        ("cpu_affinity =", CPU_INHERITED, ""),
        ("max_memory = 5M", 5 << 20, "5M"),
    ],
)
def test_values_are_read_and_written(tmp_path: Path, line: str, value: object, text: str | None) -> None:
    """What is written reads as the same again."""
    key = line.split(" ")[0]
    if value is None and text is None:
        assert faults(tmp_path, f"{CLUSTER}[plugin:x]\n{line}\n")
        return
    read = getattr(plugin(tmp_path, line), key)
    written = PLUGIN.options[key].type.write(read)
    assert read == value == PLUGIN.options[key].type.parse(written)
    assert text is None or written == text


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("run = jobs", "found 'jobs', expected module:function or module:Class, or nothing"),
        ("command = 'x", 'found "\'x", expected a program and its arguments, in shell words'),
        ('args = {"x": ]', "found '{\"x\": ]', expected text, or a list or an object in JSON"),
        ("restart = maybe", "found 'maybe', expected always, on-failure or never"),
        ("ready = later", "found 'later', expected started or notify"),
        ("stop_signal = NONE", "found 'NONE', expected a signal's name, such as TERM"),
        ("nice = 20", "found '20', expected a whole number, -20 to 19, or nothing"),
        ("after = a,,b", "found 'a,,b', expected names of groups or plugins, separated by commas"),
    ],
)
def test_a_value_that_cannot_be_read_is_quoted(tmp_path: Path, line: str, fault: str) -> None:
    """With its place, its key, and what was expected."""
    text = f"{CLUSTER}[plugin:x]\n{line}\n" + ("" if line[:3] in ("run", "com") else "run = a:b\n")
    assert faults(tmp_path, text) == [f"x.ini:4: {line.split(' ')[0]}: {fault}"]


def test_variables_keep_their_case(tmp_path: Path) -> None:
    """Two that differ in nothing else are two; one may refer to another, or to [DEFAULT]."""
    text = "run = a:b\nenv.Path = /a\nENV.PATH = %(env.Path)s:%(x)s\nenv.EMPTY =\n"
    found = loaded(tmp_path, f"[DEFAULT]\nx = 5\nenv.ALL = 1\n{CLUSTER}[plugin:x]\n{text}[plugin:y]\nrun = a:b\n")
    assert found.others["plugin:x"].env == {"ALL": "1", "Path": "/a", "PATH": "/a:5", "EMPTY": ""}
    assert found.others["plugin:y"].env == {"ALL": "1"}
    shown = {key: (value, origin) for key, value, origin in found.describe()}
    assert shown["plugin:x.env.PATH"] == ("/a:5", "x.ini:9")
    assert shown["plugin:y.env.ALL"] == ("1", "x.ini:3")
    assert "plugin:y.env.PATH" not in shown
    assert "plugin:y.env" not in shown


@pytest.mark.parametrize("key", ["env", "env.", "run.X", "envy.X"])
def test_a_variable_needs_a_name(tmp_path: Path, key: str) -> None:
    """And no other key has names."""
    (fault,) = faults(tmp_path, f"{CLUSTER}[plugin:x]\nrun = a:b\n{key} = 1\n")
    assert fault.startswith(f"x.ini:5: {key}: found an unknown key, expected an option")


def test_a_variable_stands_once(tmp_path: Path) -> None:
    """As any key."""
    (fault,) = faults(tmp_path, f"{CLUSTER}[plugin:x]\nrun = a:b\nenv.X = 1\nenv.X = 2\n")
    assert fault == "x.ini:6: env.X: found it again, expected it once: it stands in line 5"


def test_what_it_does_not_say_it_has_from_the_cluster() -> None:
    """Account, folder, umask and CPUs unless it has its own; the log's level and the name in titles always."""
    of_cluster = Options(
        user="www",
        group="web",
        chdir="/srv",
        umask=0o27,
        cpu_affinity=CPUChoice("list", (1,)),
        log_level="debug",
        proc_name="shop",
        pythonpath=("/p",),
    )
    silent = with_cluster(PluginOptions(run="a:b"), of_cluster)
    assert silent == PluginOptions(
        run="a:b",
        user="www",
        group="web",
        chdir="/srv",
        umask=0o27,
        cpu_affinity=CPUChoice("list", (1,)),
        log_level="debug",
        proc_name="shop",
        pythonpath=("/p",),
    )
    own = PluginOptions(run="a:b", user="mail", chdir="/tmp", umask=0, cpu_affinity=CPU_NONE)
    found = with_cluster(own, of_cluster)
    assert (found.user, found.group, found.chdir, found.umask, found.cpu_affinity) == ("mail", "", "/tmp", 0, CPU_NONE)
    grouped = with_cluster(PluginOptions(run="a:b", group="mail"), of_cluster)
    assert (grouped.user, grouped.group) == ("www", "mail")  # never the master's


# -- checks


MORTAL = Machine(euid=1000, egid=1000, allowed_cpus=lambda: {0, 1}, lowest_nice=lambda: 3)
RUN = "run = a:b\n"


def told(folder: Path, text: str, machine: Machine = MACHINE) -> list[str]:
    """The faults of the lines of a plugin, without their file; they begin in line 4."""
    with pytest.raises(ConfigError) as raised:
        loaded(folder, f"{CLUSTER}[plugin:x]\n{text}", machine)
    return [fault.partition("x.ini:")[2] for fault in raised.value.faults]


def test_it_either_runs_a_function_or_a_command(tmp_path: Path) -> None:
    """And only what goes with it."""
    none = "found neither run nor command, expected one of them"
    assert told(tmp_path, "") == [f"3: run: {none}"]
    both = "found it beside command, expected one of them"
    assert told(tmp_path, f"command = true\n{RUN}") == [f"5: run: {both}"]
    (fault,) = told(tmp_path, f"{RUN}reload_signal = HUP\n")
    assert fault.startswith("5: reload_signal: found a signal for a function, expected none")
    (fault,) = told(tmp_path, "command = true\nargs = [1]\n")
    assert fault.startswith("5: args: found a value beside command, expected none")


def test_what_is_shared_may_be_meant_for_others(tmp_path: Path) -> None:
    """A value of [DEFAULT] is no fault where it has no meaning."""
    shared = "[DEFAULT]\nargs = 1\nreload_signal = HUP\nrestart = never\nmax_requests = 5\n[cluster]\n"
    found = loaded(tmp_path, f"{shared}[plugin:x]\ncommand = true\n[plugin:y]\nrun = a:b\n")
    assert set(found.others) == {"plugin:x", "plugin:y"}


@pytest.mark.parametrize(
    ("schedule", "fault"),
    [
        ("* * * *", "found '* * * *', which has 4 fields, expected five: minute, hour, day of the month, month, "),
        ("0 * * * * *", "found '0 * * * * *', which has 6 fields, expected five"),
        ("@daily", "found '@daily', which has 1 fields, expected five"),
        ("61 * * * *", "found '61' as the minute in '61 * * * *', expected what cron reads"),
        ("* 24 * * *", "found '24' as the hour"),
        ("* * 0 * *", "found '0' as the day of the month"),
        ("* * * foo *", "found 'foo' as the month"),
        ("* * * * 8", "found '8' as the day of the week"),
        ("0 0 31 2 *", "found '0 0 31 2 *', expected days that exist"),
    ],
)
def test_a_schedule_has_five_fields_of_cron(tmp_path: Path, schedule: str, fault: str) -> None:
    """The fault quotes field and value; cronsim would take six fields as seconds."""
    pytest.importorskip("cronsim")
    (found,) = told(tmp_path, f"{RUN}schedule = {schedule}\n")
    assert found.startswith(f"5: schedule: {fault}")


def test_every_field_at_fault_is_named(tmp_path: Path) -> None:
    """Not the first alone."""
    pytest.importorskip("cronsim")
    assert len(told(tmp_path, f"{RUN}schedule = 60 24 32 13 8\n")) == 5


def test_a_schedule_needs_cronsim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, the fault says how to get it."""
    monkeypatch.setitem(sys.modules, "cronsim", None)
    (found,) = told(tmp_path, f"{RUN}schedule = * * * * *\n")
    assert found.endswith("expected it: pip install 'rpccluster[schedule]'")


def test_what_goes_with_a_schedule(tmp_path: Path) -> None:
    """A time zone of this machine, no restart."""
    pytest.importorskip("cronsim")
    assert plugin(tmp_path, f"{RUN}schedule = 30 2 * * MON-FRI\ntimezone = UTC\n").timezone == "UTC"
    scheduled = f"{RUN}schedule = 30 2 * * *\n"
    (found,) = told(tmp_path, f"{scheduled}restart = always\n")
    assert found.startswith("6: restart: found it beside schedule, expected one of them")
    for zone in ("Mars/Olympus", "../UTC", "Europe"):
        (found,) = told(tmp_path, f"{scheduled}timezone = {zone}\n")
        assert found.startswith(f"6: timezone: found '{zone}', expected a time zone of this machine")
    (found,) = told(tmp_path, f"{RUN}timezone = UTC\n")
    assert found == "5: timezone: found it without schedule, expected both, or neither"


def test_a_command_must_be_there_and_executable(tmp_path: Path) -> None:
    """Looked for as it will be: in the plugin's PATH, or from its folder."""
    (tmp_path / "there").mkdir()
    script = tmp_path / "there" / "script"
    script.write_text("#!/bin/sh\n")
    search = f"env.PATH = {tmp_path}/there\n"
    (found,) = told(tmp_path, f"command = script -x\n{search}")
    assert found == f"4: command: found 'script', expected a program in one of the folders {tmp_path}/there"
    assert told(tmp_path, "command = ./script\nchdir = /") == [
        "4: command: found './script', expected a program: no file /./script is there"
    ]
    (found,) = told(tmp_path, "command = there/script\n")
    assert found.endswith(f"expected a program: {tmp_path}/there/script is not executable")
    script.chmod(0o755)
    for text in (
        f"command = script\n{search}",
        "command = there/script",
        f"command = ./script\nchdir = {script.parent}",
    ):
        loaded(tmp_path, f"{CLUSTER}[plugin:x]\n{text}\n")


def test_what_only_root_may_change(tmp_path: Path) -> None:
    """The account, and a niceness below that of the master; the CPUs must be there."""
    text = f"{RUN}user = root\ngroup = root\nnice = 2\ncpu_affinity = 7\nchdir = /nowhere\n"
    assert told(tmp_path, text, MORTAL) == [
        "5: user: found 'root', expected nothing: only root can change its user",
        "6: group: found 'root', expected nothing: only root can change its group",
        "7: nice: found 2, expected 3 or more: only root may go below it",
        "8: cpu_affinity: found 7, expected CPUs this process may run on: 0-1",
        "9: chdir: found '/nowhere', expected a folder that exists",
    ]
    assert loaded(tmp_path, f"{CLUSTER}[plugin:x]\n{RUN}nice = -20\nuser = nobody\n").others["plugin:x"].nice == -20


def test_its_log(tmp_path: Path) -> None:
    """Only a file of its own is rotated; it must be one that can be made."""
    (found,) = told(tmp_path, f"{RUN}log_max_size = 1M\n")
    assert found == "5: log_max_size: found it without log_file, expected both: the cluster's log is not rotated"
    (found,) = told(tmp_path, f"{RUN}log_file = .\n")
    assert found.startswith("5: log_file: found the folder")
