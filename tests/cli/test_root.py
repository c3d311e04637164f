"""The command line: what may be written, which source wins, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from rpccluster.cli import main  # noqa: F401 - it adds the subcommands
from rpccluster.cli.calling.call import jsonable
from rpccluster.cli.root import ENVIRONMENT, WORDS_OF_OTHERS, cli
from rpccluster.config import OPTIONS, Sources
from rpccluster.errors import ConfigError, StartError
from rpccluster.version import __version__


class Shell:
    """A person in a folder with a configuration file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.delenv(ENVIRONMENT, raising=False)
        self.write("")

    def write(self, text: str) -> None:
        (self.folder / "x.ini").write_text("[cluster]\nservice = a:b\n" + text)

    def run(self, *words: str, environment: str | None = None) -> Result:
        if environment is not None:
            self._monkeypatch.setenv(ENVIRONMENT, environment)
        return CliRunner().invoke(cli, words, prog_name="rpccluster")

    def shown(self, *words: str, environment: str | None = None) -> dict[str, tuple[str, str]]:
        """What --print-config shows: key to value and origin."""
        result = self.run("-c", "x.ini", *words, "--print-config", environment=environment)
        assert result.exit_code == 0, result
        rows = (line.partition(" = ") for line in result.output.splitlines())
        return {key.strip(): tuple(map(str.strip, rest.rpartition("  # ")[::2])) for key, _, rest in rows}  # type: ignore[misc]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """In a folder of its own."""
    return Shell(tmp_path, monkeypatch)


# -- which source wins


def test_default_then_file_then_environment_then_flags(shell: Shell) -> None:
    """Each overrides the one before, and each value says where it came from."""
    shell.write("number_workers = 2\nlog_level = error\nproc_name = file\n")
    shown = shell.shown("-n", "flag", environment="-w 3 --name environment --log-level=debug")
    assert shown["backlog"] == ("2048", "default")
    assert shown["service"] == ("a:b", "x.ini:2")
    assert shown["number_workers"] == ("3", ENVIRONMENT)
    assert shown["log_level"] == ("debug", ENVIRONMENT)
    assert shown["proc_name"] == ("flag", "flag --name")


def test_a_flag_that_may_be_repeated_replaces_the_lesser_sources(shell: Shell) -> None:
    """Addresses of the command line are not added to the file's."""
    shell.write("bind = tcp://h:1\n")
    assert shell.shown()["bind"] == ("tcp://h:1", "x.ini:3")
    assert shell.shown(environment="-b h:2 -b h:3")["bind"] == ("tcp://h:2, tcp://h:3", ENVIRONMENT)
    assert shell.shown("-b", "h:4", "--bind", "h:5")["bind"] == ("tcp://h:4, tcp://h:5", "flag --bind")


def test_a_switch_that_is_not_given_leaves_the_files_value(shell: Shell) -> None:
    """-D says true, its absence says nothing."""
    assert shell.shown()["daemonize"] == ("false", "default")
    shell.write("daemonize = true\n")
    assert shell.shown()["daemonize"] == ("true", "x.ini:3")
    shell.write("daemonize = false\n")
    assert shell.shown("-D")["daemonize"] == ("true", "flag --daemon")
    assert shell.shown(environment="--daemon")["daemonize"] == ("true", ENVIRONMENT)


def test_the_file_may_come_from_the_environment(shell: Shell) -> None:
    """The command line's counts more; other flags of the environment may come with it."""
    (shell.folder / "y.ini").write_text("[cluster]\nservice = y:y\n")
    result = shell.run("--print-config", environment="-c y.ini --workers 7")
    assert "y:y" in result.output
    assert any(line.startswith("number_workers") and line.endswith(ENVIRONMENT) for line in result.output.splitlines())
    assert "a:b" in shell.run("-c", "x.ini", "--print-config").output


def test_flags_that_only_look_count_in_the_environment_too(shell: Shell) -> None:
    """As on the command line; but none that shows something and ends before anything is read."""
    assert "service" in shell.run("-c", "x.ini", environment="--print-config").output
    for environment in ("-V", "--version", "-h", "--help"):
        error = shell.run("-c", "x.ini", "--print-config", environment=environment).exception
        assert isinstance(error, ConfigError)
        assert "No such option" in str(error)


def test_words_of_the_environment_are_a_shells(shell: Shell) -> None:
    """Quotes hold together what has spaces."""
    assert shell.shown(environment="--name 'a b'")["proc_name"] == ("a b", ENVIRONMENT)
    assert shell.shown(environment="  ")["proc_name"] == ("rpccluster", "default")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ("--wokers 3", "No such option"),
        ("-w", "requires an argument"),
        ("status", "unexpected extra argument"),
        ("-w 3 stop --now", "--now"),
        ("--name 'open", "No closing quotation"),
        ("-V", "No such option"),
    ],
)
def test_a_fault_in_the_environment_is_never_ignored(shell: Shell, environment: str, said: str) -> None:
    """It is named as such, exit code 1."""
    error = shell.run("-c", "x.ini", environment=environment).exception
    assert isinstance(error, StartError)
    assert str(error).startswith((f"{ENVIRONMENT}: ", f"cannot parse {ENVIRONMENT}: "))
    assert said in str(error)
    assert error.exit_code == 1


def test_a_bad_value_names_its_source(shell: Shell) -> None:
    """All faults at once, in the order of the sources."""
    shell.write("backlog = many\n")
    error = shell.run("-c", "x.ini", "-b", "nonsense", "--print-config", environment="-w none").exception
    assert isinstance(error, ConfigError)
    assert [fault.partition(": found")[0] for fault in error.faults] == [
        "x.ini:3: backlog",
        f"{ENVIRONMENT}: number_workers",
        "flag --bind: bind",
    ]


# -- flags


GUNICORNS = {
    "bind": ("-b", "--bind"),
    "number_workers": ("-w", "--workers"),
    "daemonize": ("-D", "--daemon"),
    "pidfile": ("-p", "--pid"),
    "control_socket": ("--control",),
    "reload_code": ("--reload",),
    "proc_name": ("-n", "--name"),
    "user": ("-u", "--user"),
    "group": ("-g", "--group"),
    "pythonpath": ("--pythonpath",),
    "chdir": ("--chdir",),
    "log_level": ("--log-level",),
    "log_file": ("--log-file",),
}


def test_flags_have_gunicorns_names() -> None:
    """Those of the contract, no others; one has no name there."""
    assert {key: option.flags for key, option in OPTIONS.items() if option.flags} == GUNICORNS
    flags = {flag for parameter in cli.params for flag in parameter.opts}
    own = {"-c", "--config", "--check-config", "--print-config", "-V", "--version"}
    assert flags == own.union(*GUNICORNS.values())


VALUES = {
    "bind": "tcp://h:9",
    "number_workers": "9",
    "pidfile": "/x/pid",
    "control_socket": "/x/control",
    "proc_name": "x",
    "user": "root",
    "group": "root",
    "pythonpath": "/x/lib",
    "chdir": "/x",
    "log_level": "error",
    "log_file": "/x/log",
}


@pytest.mark.parametrize(("key", "flag"), [(key, flag) for key in VALUES for flag in GUNICORNS[key]])
def test_every_flag_sets_its_option(shell: Shell, key: str, flag: str) -> None:
    """Short or long."""
    assert shell.shown(flag, VALUES[key])[key] == (VALUES[key], f"flag {GUNICORNS[key][-1]}")


def test_paths_of_flags_are_relative_to_where_they_were_typed(shell: Shell) -> None:
    """Not to the file's folder, nor to `chdir`."""
    assert shell.shown("-p", "run/x.pid", "--chdir", "/")["pidfile"][0] == str(shell.folder / "run/x.pid")


@pytest.mark.parametrize("words", [["--nope"], ["-w"], ["nope"], ["scale"], ["stop", "--nope"], ["call", "h:1"]])
def test_what_cannot_be_understood_is_a_usage_error(shell: Shell, words: list[str]) -> None:
    """Exit code 2, what is wrong, and the form of the command."""
    result = shell.run("-c", "x.ini", *words)
    assert result.exit_code == 2
    assert result.output.startswith("rpccluster: ") and len(result.output.splitlines()) <= 2


def test_the_words_of_other_programs_lead_somewhere(shell: Shell) -> None:
    """To a command that there is, or to the way to serve."""
    for word, meant in WORDS_OF_OTHERS.items():
        assert f"Did you mean 'rpccluster {meant}'?" in shell.run(word).output
        assert not meant[0].islower() or meant.split()[0] in cli.commands


def test_version_and_help(shell: Shell) -> None:
    """Without a configuration."""
    for flag in ("-V", "--version"):
        assert shell.run(flag).output == f"rpccluster {__version__}\n"
    shown = shell.run("-h").output
    assert shown == shell.run("--help").output
    for name in ("status", "scale", "reload", "upgrade", "stop", "call", "--workers", "--check-config"):
        assert name in shown


def test_every_option_is_printed(shell: Shell) -> None:
    """With its value and where it came from, in the order of the schema."""
    assert list(shell.shown()) == list(OPTIONS)


def test_what_is_printed_can_be_read_again(shell: Shell) -> None:
    """The values are in the form of the file."""
    shell.write("max_memory = 1G\nbind = h:1, unix:///x\ncpu_affinity = 0-1\numask = 027\npythonpath = a, b\n")
    shown = shell.shown()
    values = {key: value for key, (value, _) in shown.items() if key not in ("service", "single_instance")}
    shell.write("".join(f"{key} = {value}\n" for key, value in values.items() if value))
    again = shell.shown()
    assert {key: value for key, (value, _) in again.items()} == {key: value for key, (value, _) in shown.items()}


# -- a service without a file


def test_a_service_may_be_named_without_a_file(shell: Shell) -> None:
    """Flags stand before or behind it, the later ones count; it overrides a file's."""
    result = shell.run("-w", "2", "-n", "before", "--print-config", "c:D", "--name", "behind")
    assert result.exit_code == 0, result
    rows = [line.split(maxsplit=2) for line in result.output.splitlines()]
    shown = {key: rest.split("  # ") for key, _, rest in rows if not rest.startswith("#")}
    assert [part.strip() for part in shown["service"]] == ["c:D", "command line"]
    assert [part.strip() for part in shown["number_workers"]] == ["2", "flag --workers"]
    assert [part.strip() for part in shown["proc_name"]] == ["behind", "flag --name"]
    for words in (["-c", "x.ini", "c:D", "--print-config"], ["--print-config", "c:D", "-c", "x.ini"]):
        assert "= c:D" in shell.run(*words).output
    assert "= c:D" in shell.run("c:D", environment="--print-config").output


def test_a_service_that_is_none(shell: Shell) -> None:
    """A fault of the configuration, as in a file; a flag that is none is a usage error."""
    error = shell.run("c:").exception
    assert isinstance(error, ConfigError)
    assert error.faults == ["command line: service: found 'c:', expected module:Class or module:object"]
    result = shell.run("c:D", "--wokers", "3")
    assert (result.exit_code, "--workers" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statsu"], "Did you mean 'status'?"),
        (["-c", "x.ini", "relaod"], "Did you mean 'reload'?"),
        (["x.ini"], "a file by -c FILE"),
        (["shop"], "A service is named MODULE:CLASS"),
        (["status", "--jsn"], "--json"),
        (["--wokers", "3"], "--workers"),
    ],
)
def test_the_nearest_name_is_told(shell: Shell, words: list[str], said: str) -> None:
    """Of a command or a flag; and what else the word may have meant."""
    result = shell.run(*words)
    assert result.exit_code == 2
    assert said in result.output


def test_help_begins_with_the_commands_that_matter_first(shell: Shell) -> None:
    """Five, then the others, then the flags."""
    shown = shell.run("--help").output
    order = [shown.index(f"\n  {name}") for name in ("call", "status", "reload", "scale", "stop", "upgrade", "-c, ")]
    assert order == sorted(order)
    assert all(f"\n  {name}" in shown for name in cli.commands)


@pytest.mark.parametrize("group", ["", *(name for name, each in cli.commands.items() if isinstance(each, click.Group))])
def test_lists_of_commands_say_all_that_a_command_does(shell: Shell, group: str) -> None:
    """click would cut a line off, often before what the command waits for."""
    shown = shell.run(*group.split(), "--help").output
    assert "..." not in shown.replace("[ARGS]...", "")
    listed = cli.commands[group] if group else cli
    assert isinstance(listed, click.Group)
    for command in listed.commands.values():
        first = " ".join(command.get_short_help_str(1000).split())
        assert first in " ".join(shown.split())


# -- what subcommands are handed


@pytest.mark.parametrize(
    ("words", "completed"),
    [("sta", "status"), ("status --j", "--json"), ("--work", "--workers"), ("stop --con", "--config")],
)
def test_the_shell_completes_commands_and_flags(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, words: str, completed: str
) -> None:
    """As bash asks, once it has read what `_RPCCLUSTER_COMPLETE=bash_source rpccluster` prints."""
    monkeypatch.setenv("_RPCCLUSTER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"rpccluster {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    assert f"plain,{completed}" in shell.run().output.splitlines()


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[Sources]:
    """The sources that a subcommand gets."""
    seen: list[Sources] = []

    @click.command()
    @click.pass_obj
    def look(sources: Sources) -> None:
        seen.append(sources)

    monkeypatch.setitem(cli.commands, "look", look)
    return seen


def test_subcommands_get_the_sources(shell: Shell, handed: list[Sources]) -> None:
    """And nothing has been read yet: `call` needs no configuration."""
    assert shell.run("-c", "nowhere.ini", "-w", "3", "look", environment="-n x").exit_code == 0
    (sources,) = handed
    assert (sources.path, sources.environment, sources.flags) == (
        "nowhere.ini",
        {"proc_name": "x"},
        {"number_workers": "3"},
    )
    assert sources.start_folder == str(shell.folder)


def test_a_control_socket_may_be_done_without(shell: Shell) -> None:
    """Then there is no way to the master: exit code 1."""
    shell.write("control_socket =\n")
    for words in (["status"], ["scale", "3"], ["reload"], ["upgrade"], ["stop"]):
        error = shell.run("-c", "x.ini", *words).exception
        assert isinstance(error, StartError)
        assert "`control_socket` is set to nothing" in str(error)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["-c", "", "stop"], 2),
        (["stop", "--config="], 2),
        (["-c", "", "shop:Shop", "--print-config"], 2),
        (["--control", "", "stop"], 1),
        (["stop", "--control="], 1),
        (["-c", "x.ini", "stop", "--control", ""], 1),
    ],
)
def test_an_empty_name_means_no_other_cluster(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
) -> None:
    """As an unset variable of a script is: `stop` must not reach the only cluster that runs."""
    monkeypatch.setattr("rpccluster.cli.control.living", lambda identity: pytest.fail("looked for another"))
    result = shell.run(*words)
    error = result.exception
    assert (error.exit_code if isinstance(error, StartError) else result.exit_code) == code


@pytest.mark.parametrize("words", [["status"], ["-c", "x.ini", "status"], ["stop", "-c", "x.ini"]])
def test_where_no_cluster_lives(shell: Shell, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Neither this file's nor any other: exit code 3, and how to name one."""
    monkeypatch.setattr("rpccluster.cli.control.living", lambda identity: [])
    result = shell.run(*words)
    assert result.exit_code == 3
    assert "no master answers" in result.output and "--control PATH" in result.output


def test_several_are_listed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that do not answer: exit code 2."""
    monkeypatch.setattr("rpccluster.cli.control.living", lambda identity: ["/nowhere/one", "/nowhere/other"])
    result = shell.run("stop")
    assert result.exit_code == 2
    assert "found 2 clusters" in result.output
    assert "/nowhere/one: does not answer" in result.output and "/nowhere/other: does" in result.output


def test_without_a_master_control_commands_end_with_3(shell: Shell) -> None:
    """No such socket, or nobody who listens."""
    shell.write("control_socket = control.sock\n")
    for words in (["status"], ["status", "--json"], ["scale", "+1"], ["scale", "-1"], ["reload"], ["stop", "--now"]):
        result = shell.run("-c", "x.ini", *words)
        assert result.exit_code == 3
        assert "no master answers" in result.output


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["-c", "x.ini", "status"], "file.sock"),
        (["status", "-c", "x.ini"], "file.sock"),
        (["-c", "nowhere.ini", "scale", "+1", "--config", "x.ini"], "file.sock"),
        (["--control", "flag.sock", "status"], "flag.sock"),
        (["scale", "-1", "--control", "flag.sock"], "flag.sock"),
        (["-c", "x.ini", "stop", "--control", "flag.sock", "--now"], "flag.sock"),
        (["--control", "flag.sock", "reload", "-c", "x.ini"], "flag.sock"),
        (["--control", "flag.sock", "upgrade", "--control=other.sock"], "other.sock"),
    ],
)
def test_the_cluster_is_named_before_or_after_the_command(shell: Shell, words: list[str], path: str) -> None:
    """By its file or its socket; a socket counts more than a file, what stands later more than the same before."""
    shell.write("control_socket = file.sock\n")
    result = shell.run(*words)
    assert result.exit_code == 3, result
    assert f"{shell.folder}/{path}" in result.output


# -- call


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nonsense", "m"], 2, "expected tcp://HOST:PORT"),
        (["127.0.0.1:1", "m"], 3, "127.0.0.1:1"),
        (["unix:///nowhere/x", "m"], 3, "/nowhere/x"),
        (["127.0.0.1:1", "m", "{"], 2, "expected JSON"),
        (["127.0.0.1:1", "m", "text"], 3, "127.0.0.1:1"),
        (["127.0.0.1:1", "m", "-h"], 3, "127.0.0.1:1"),
        (["127.0.0.1:1", "m", "-hot"], 3, "127.0.0.1:1"),
        (["-h"], 0, "--repeat"),
        (["--timeout", "0", "127.0.0.1:1", "m"], 2, "timeout"),
        (["--timeout", "x", "127.0.0.1:1", "m"], 2, "timeout"),
    ],
)
def test_call_tells_what_went_wrong_by_its_exit_code(shell: Shell, words: list[str], code: int, said: str) -> None:
    """2 for usage, 3 for a connection that could not be had."""
    result = shell.run("call", *words)
    assert result.exit_code == code, result.output
    assert said in result.output


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3, 3),
        ([1, [2]], [1, [2]]),
        ({"a": b"\x00\x01"}, {"a": "AAE="}),
        ({1: 2, None: 3, b"x": 4}, {"1": 2, "None": 3, "eA==": 4}),
        (object, str(object)),
        ("Grüße", "Grüße"),
        (None, None),
    ],
)
def test_results_are_shown_as_json(value: Any, shown: Any) -> None:
    """Bytes as base64, keys as text, what JSON does not know as its text."""
    assert json.loads(json.dumps(jsonable(value))) == shown
