"""The sources together: which one wins, where each value came from, every fault at once, and what a HUP may do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rpccluster.config import OPTIONS, Configuration, Machine, Sources, find, load, refused_changes, reload
from rpccluster.config.cpus import default_workers
from rpccluster.errors import ConfigError

MACHINE = Machine(euid=0, egid=0, allowed_cpus=lambda: {0, 1})


class Folder:
    """A start folder with one configuration file in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, text: str, name: str = "x.ini") -> None:
        (self.path / name).write_text(text)

    def sources(self, environment: dict[str, str] | None = None, **flags: str) -> Sources:
        return Sources("x.ini", environment or {}, flags, str(self.path))

    def load(self, text: str, environment: dict[str, str] | None = None, **flags: str) -> Configuration:
        self.write(text)
        return load(self.sources(environment, **flags))

    def faults(self, text: str, environment: dict[str, str] | None = None, **flags: str) -> list[str]:
        self.write(text)
        with pytest.raises(ConfigError) as error:
            load(self.sources(environment, **flags), MACHINE)
        return error.value.faults


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_each_source_overrides_the_one_before(folder: Folder) -> None:
    """Order: built-in default < file < environment < flags; each value remembers its source."""
    text = "[cluster]\nservice = a:b\nnumber_workers = 2\nproc_name = file\nlog_level = error\n"
    environment = {"number_workers": "3", "proc_name": "env"}
    configuration = folder.load(text, environment, number_workers="4")
    options = configuration.options
    assert (options.backlog, options.log_level, options.proc_name, options.number_workers) == (2048, "error", "env", 4)
    origins = {key: str(configuration.origin(key)) for key in ("backlog", "log_level", "proc_name", "number_workers")}
    assert origins == {
        "backlog": "default",
        "log_level": "x.ini:5",
        "proc_name": "RPCCLUSTER_CMD_ARGS",
        "number_workers": "flag --workers",
    }


def test_values_of_every_kind_arrive_typed(folder: Folder) -> None:
    """What `Options` promises holds for values from a file, too."""
    options = folder.load(
        "[cluster]\nservice = a:b\nbind = 127.0.0.1:1,\n  unix:///x\nmax_memory = 1G\ntimeout = 0.5\numask = 027\n"
        "cpu_affinity = 0-1\ndaemonize = yes\npythonpath = lib, /opt\n"
    ).options
    assert [str(address) for address in options.bind] == ["tcp://127.0.0.1:1", "unix:///x"]
    assert (options.max_memory, options.timeout, options.umask, options.daemonize) == (1 << 30, 0.5, 0o27, True)
    assert options.cpu_affinity.cpus == (0, 1)
    assert options.pythonpath == (str(folder.path / "lib"), "/opt")


def test_paths_are_absolute_from_then_on(folder: Folder) -> None:
    """Relative paths begin in the start folder, from every source, wherever the process is later."""
    text = "[cluster]\nservice = a:b\npidfile = run/x.pid\ncontrol_socket = %(here)s/../x.sock\naccess_log = a.log\n"
    options = folder.load(text, {"chdir": "work"}, log_file="x.log").options
    assert options.pidfile == str(folder.path / "run" / "x.pid")
    assert options.control_socket == str(folder.path.parent / "x.sock")
    assert options.access_log == str(folder.path / "a.log")
    assert options.chdir == str(folder.path / "work")
    assert options.log_file == str(folder.path / "x.log")


def test_the_file_is_named_as_the_user_wrote_it(folder: Folder) -> None:
    """Origins and faults show the path given with --config; `path` is absolute."""
    configuration = folder.load("[cluster]\nservice = a:b\n")
    assert str(configuration.origin("service")) == "x.ini:2"
    assert configuration.path == str(folder.path / "x.ini")
    assert load(Sources(str(folder.path / "x.ini"))).path == str(folder.path / "x.ini")


def test_sources_start_in_the_present_folder() -> None:
    """Nobody has to say where the program was started."""
    assert Sources().start_folder == os.getcwd()


def test_describe_shows_every_option(folder: Folder) -> None:
    """--print-config shows every option, its value and where it came from, in the schema's order."""
    described = list(folder.load("[cluster]\nservice = a:b\n", number_workers="3").describe())
    assert [key for key, _, _ in described] == list(OPTIONS)
    assert ("service", "a:b", "x.ini:2") in described
    assert ("number_workers", "3", "flag --workers") in described
    assert ("max_message_size", "16M", "default") in described
    assert ("log_file", "stderr", "default") in described


def test_what_is_described_loads_as_the_same_options(folder: Folder) -> None:
    """The values that --print-config shows could stand in a file."""
    first = folder.load("[cluster]\nservice = a:b\nproc_name = 100%%\ncpu_affinity = 0-1\npidfile = x\n")
    lines = [f"{key} = {text}".replace("%", "%%") for key, text, _ in first.describe()]
    assert folder.load("\n".join(["[cluster]", *lines])).options == first.options


def test_flags_are_not_interpolated(folder: Folder) -> None:
    """A percent sign on the command line is one."""
    assert folder.load("[cluster]\nservice = a:b\n", proc_name="100% %(x)s").options.proc_name == "100% %(x)s"


def test_a_service_is_needed(folder: Folder) -> None:
    """The one option without a default is asked for where it belongs."""
    fault = "service: found nothing, expected module:Class or module:object"
    assert folder.faults("# mine\n[cluster]\n") == [f"x.ini:2: {fault}"]
    assert folder.faults("[cluster]\nservice =\n") == [f"x.ini:2: {fault}"]
    with pytest.raises(ConfigError) as error:
        load(Sources())
    assert error.value.faults == [f"command line: {fault}; a file is named by -c FILE"]


def test_a_missing_file_is_one_fault(folder: Folder) -> None:
    """What an unreadable file might have said is not complained about."""
    with pytest.raises(ConfigError) as error:
        load(folder.sources(), MACHINE)
    assert error.value.faults == ["x.ini:1: config: cannot read the file: No such file or directory"]
    assert error.value.exit_code == 1


def test_what_tells_clusters_apart() -> None:
    """The file, by whatever name it is reached; without one the flags, and the folder that they were given in."""
    one = Sources("x.ini", flags={"proc_name": "one"}, start_folder="/srv/a")
    assert one.identity == Sources("../a/./x.ini", start_folder="/srv/a").identity == Sources("/srv/a/x.ini").identity
    without = [Sources(flags={"service": name}, start_folder=at) for name in ("a:b", "a:c") for at in ("/srv", "/")]
    assert len({each.identity for each in (one, *without)}) == 5


def test_one_option_is_found_beside_faults(folder: Folder) -> None:
    """What leads to a running master is told whatever else is wrong by now; what is at fault itself is not."""
    folder.write("[cluster]\ntimeout = soon\nnonsense = 1\ncontrol_socket = run/c.sock\n")
    assert find(folder.sources(), "control_socket") == str(folder.path / "run/c.sock")
    folder.write("[cluster]\nservice = a:b\n")
    assert find(folder.sources(), "control_socket") is None
    folder.write("[cluster]\nservice = a:b\ncontrol_socket =\n")
    assert find(folder.sources(), "control_socket") == ""
    assert find(Sources(), "control_socket") is None
    assert find(Sources(flags={"control_socket": "/c.sock"}), "control_socket") == "/c.sock"
    folder.write("[cluster]\nservice = a:b\ncontrol_socket = unix:///x\n")
    with pytest.raises(ConfigError) as error:
        find(folder.sources(), "control_socket")
    assert error.value.faults == [
        "x.ini:3: control_socket: found 'unix:///x', expected the plain path of a Unix socket"
    ]


def test_faults_of_flags_and_environment_name_them(folder: Folder) -> None:
    """A bad flag is told from a bad line."""
    assert folder.faults("[cluster]\nservice = a:b\n", {"log_level": "loud"}, number_workers="0") == [
        "RPCCLUSTER_CMD_ARGS: log_level: found 'loud', expected debug, info, warning, error or critical",
        "flag --workers: number_workers: found '0', expected a whole number, 1 to 512",
    ]


def test_all_faults_come_at_once_in_order(folder: Folder) -> None:
    """Form, values and checks of file, environment and flags are reported together, in the order of the lines."""
    text = (
        "[DEFAULT]\nunused = 1\ntimeout = -1\n[cluster]\nservice = a:b\nbaklog = 1\nchdir = nowhere\n"
        "timeout = 5\nmax_memory = lots\nsingle_instance = true\nmax_memory = 1M\n"
    )
    places = [
        fault.split(": found")[0]
        for fault in folder.faults(text, {"number_workers": "no"}, user="nobody-at-all", bind="x")
    ]
    assert places == [
        "x.ini:2: unused",
        "x.ini:3: timeout",
        "x.ini:6: baklog",
        "x.ini:7: chdir",
        "x.ini:9: max_memory",
        "x.ini:10: single_instance",
        "x.ini:11: max_memory",
        "RPCCLUSTER_CMD_ARGS: number_workers",
        "flag --bind: bind",
        "flag --user: user",
    ]


@pytest.mark.parametrize("text", ["bind = nonsense\nunix_socket =", "single_instance = true\npidfile = a\0b"])
def test_a_faulty_option_brings_no_fault_of_its_default(folder: Folder, text: str) -> None:
    """One mistake is one fault: nothing is concluded from the default in its place."""
    assert len(folder.faults(f"[cluster]\nservice = a:b\n{text}\n")) == 1


def test_a_bad_value_is_a_fault_even_where_a_flag_overrides_it(folder: Folder) -> None:
    """A bad value is never ignored."""
    faults = folder.faults("[cluster]\nservice = a:b\nbacklog = x\nnumber_workers = x\n", number_workers="2")
    assert [fault.split(": found")[0] for fault in faults] == ["x.ini:3: backlog", "x.ini:4: number_workers"]


def test_without_a_machine_nothing_is_checked_against_it(folder: Folder) -> None:
    """`status` and --print-config read a configuration that could not start here."""
    assert folder.load("[cluster]\nservice = a:b\nuser = nobody-at-all\nchdir = nowhere\n").options.user


LOCK = ": the master holds the lock of its pidfile as long as it lives"
OWNS = ": sockets and logs that are open belong to that account"
FOUND = ": commands find this cluster by its socket"
ONCE = ": a process goes to the background at its start alone"

RUNNING = "[cluster]\nservice = a:b\npidfile = x.pid\nuser = 0\nnumber_workers = 2\n"


def test_a_reload_takes_what_may_change(folder: Folder) -> None:
    """HUP reads the same sources again; flags still win."""
    running = folder.load(RUNNING, proc_name="flag")
    folder.write(RUNNING.replace("= 2", "= 3") + "bind = 127.0.0.1:0\nproc_name = file\n")
    changed = reload(running, MACHINE)
    assert (changed.options.number_workers, changed.options.proc_name) == (3, "flag")
    assert str(changed.options.bind[0]) == "tcp://127.0.0.1:0"


def test_a_reload_needs_no_start_folder(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    """After `chdir` or as a daemon the same files are read, and relative paths mean the same."""
    running = folder.load(RUNNING)
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    try:
        assert reload(running, MACHINE) == running
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("control_socket = /c", f"control_socket: found /c, expected nothing until the next start{FOUND}"),
        ("group = 1", f"group: found 1, expected nothing until the next start{OWNS}"),
        ("daemonize = true", f"daemonize: found true, expected false until the next start{ONCE}"),
        ("single_instance = no", f"single_instance: found false, expected true until the next start{LOCK}"),
    ],
)
def test_a_reload_refuses_what_a_hup_cannot_change(folder: Folder, line: str, fault: str) -> None:
    """The fault names the new value and the old one, and the reason."""
    fault = f"x.ini:6: {fault}"
    running = folder.load(RUNNING)
    folder.write(RUNNING + line)
    with pytest.raises(ConfigError) as error:
        reload(running, MACHINE)
    assert error.value.faults == [fault]
    assert [str(each) for each in refused_changes(running, load(running.sources))] == [fault]


def test_a_reload_refuses_what_was_taken_away(folder: Folder) -> None:
    """Leaving a line out is a change, too: what is gone has no line."""
    running = folder.load(RUNNING)
    folder.write("[cluster]\nservice = a:b\n")
    with pytest.raises(ConfigError) as error:
        reload(running, MACHINE)
    assert error.value.faults == [
        f"default: pidfile: found nothing, expected {folder.path}/x.pid until the next start{LOCK}",
        f"default: single_instance: found false, expected true until the next start{LOCK}",
        f"default: user: found nothing, expected 0 until the next start{OWNS}",
    ]


def test_a_reload_reports_everything_at_once(folder: Folder) -> None:
    """A faulty file and a refused change are told together, each option once."""
    running = folder.load(RUNNING)
    folder.write("[cluster]\nservice = a:b\npidfile = y.pid\nuser = no-such-user\nnumber_workers = none\n")
    with pytest.raises(ConfigError) as error:
        reload(running, MACHINE)
    assert [fault.split(": found")[0] for fault in error.value.faults] == [
        "x.ini:3: pidfile",
        "x.ini:4: user",
        "x.ini:5: number_workers",
    ]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (None, ["x.ini:1: config: cannot read the file: No such file or directory"]),
        ("service = a:b", ["x.ini:1: service", "x.ini:1: [cluster]"]),
        (RUNNING.replace("x.pid", "%(x)s"), ["x.ini:3: pidfile"]),
    ],
)
def test_a_reload_takes_no_default_for_a_change(folder: Folder, text: str | None, faults: list[str]) -> None:
    """An option that could not be read was not changed: the fault is told, and nothing that follows from it."""
    running = folder.load(RUNNING)
    (folder.path / "x.ini").unlink() if text is None else folder.write(text)
    with pytest.raises(ConfigError) as error:
        reload(running, MACHINE)
    assert sorted(fault.split(": found")[0] for fault in error.value.faults) == sorted(faults)


def test_a_value_that_is_the_same_in_other_words_is_no_change(folder: Folder) -> None:
    """Only values count."""
    running = folder.load(RUNNING)
    folder.write(RUNNING.replace("x.pid", f"{folder.path}/x.pid") + "daemonize = no\n")
    assert reload(running, MACHINE).options == running.options


def test_the_default_of_number_workers_is_asked_of_the_machine(folder: Folder) -> None:
    """Without a file's word there is a worker for each CPU."""
    configuration = folder.load("[cluster]\nservice = a:b\n")
    assert configuration.options.number_workers == default_workers()
    assert str(configuration.origin("number_workers")) == "default"
