"""The commands for plugins and for the number of a group's processes: what they ask a master, and what they print.

The master is made up; `tests/process/test_plugin_commands.py` has a real one.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import msgpack
import pytest
from click.testing import Result

from cli.running import runner
from rpccluster.cli import main  # noqa: F401 - it adds the subcommands
from rpccluster.cli.root import cli

Answer = Callable[..., Any]


def group(name: str, kind: str, state: str = "ready", reason: str = "", **first: Any) -> dict[str, Any]:
    """A group's row of ``status``, with one process."""
    process = {"slot": 0, "pid": 12, "uptime_seconds": 5.2, "restarts": 3, **first}
    return {"name": name, "kind": kind, "state": state, "reason": reason, "wanted": 1, "processes": [process]}


STATUS = {
    "groups": [
        group("workers", "rpc"),
        {**group("plugin:water", "plugin"), "description": "a reminder"},
        group("plugin:load", "plugin", "waiting", "exit code 1\nmore", pid=None, retry_in_seconds=3.4),
    ]
}


class Master(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A made-up master at a control socket. It notes what it is asked."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, _Handler)
        self.asked: list[Any] = []
        self.methods: dict[str, Answer] = {"rpc.ping": lambda: "pong", "status": lambda: STATUS}


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Master)
        unpacker = msgpack.Unpacker()
        while data := self.request.recv(1 << 16):
            unpacker.feed(data)
            for _, number, method, params in unpacker:
                if not method.startswith(("rpc.", "status")):
                    self.server.asked.append([method, *params])
                try:
                    reply = [1, number, None, self.server.methods[method](*params)]
                except Exception as error:
                    reply = [1, number, f"RuntimeError: {error}", None]
                self.request.sendall(msgpack.packb(reply))


@pytest.fixture
def master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Master]:
    """A master that is the only one of this user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RPCCLUSTER_CMD_ARGS", raising=False)
    with Master("control.sock") as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def run(*words: str) -> Result:
    """Run the program with the control socket of the made-up master."""
    return runner().invoke(cli, ["--control", "control.sock", *words], prog_name="rpccluster")


def test_the_list_shows_the_plugins_alone(master: Master) -> None:
    """With the reason of one that is not ready, else what it is for."""
    assert run("plugin", "list").output.splitlines() == [
        "name   state    pids  up   restarts",
        "water  ready    12    5 s  3         a reminder",
        "load   waiting  -     -    3         exit code 1, again in 3 s",
    ]
    assert json.loads(run("plugin", "list", "--json").output) == STATUS["groups"][1:]


@pytest.mark.parametrize("command", ["start", "stop", "restart"])
@pytest.mark.parametrize("name", ["water", "plugin:water"])
def test_a_plugin_is_commanded_by_its_name(master: Master, command: str, name: str) -> None:
    """Without `plugin:` or with it; the command is done when the master says so."""
    master.methods[f"plugin.{command}"] = lambda name: True
    assert run("plugin", command, name).exit_code == 0
    assert master.asked == [[f"plugin.{command}", "water"]]


def test_what_is_not_done_ends_with_the_reason(master: Master) -> None:
    """And with 1."""

    def refuse(name: str) -> None:
        raise RuntimeError(f"{name} does not get ready")

    master.methods["plugin.start"] = refuse
    done = run("plugin", "start", "load")
    assert (done.exit_code, done.output) == (1, "rpccluster: load does not get ready\n")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("plugin", "stop", "watr"), "found no plugin 'watr'. Did you mean 'water'?"),
        (("plugin", "stop", "zzz"), "found no plugin 'zzz'. There are water, load."),
        (("plugin", "tail", "workers"), "found no plugin 'workers'. There are water, load."),
        (("scale", "worker", "2"), "found no group 'worker'. Did you mean 'workers'?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(master: Master, words: tuple[str, ...], fault: str) -> None:
    """And nothing is asked of the master."""
    done = run(*words)
    assert (done.exit_code, done.output, master.asked) == (1, f"rpccluster: {fault}\n", [])


def test_an_unknown_command_is_answered_with_the_nearest(master: Master) -> None:
    """As at the top."""
    done = run("plugin", "lits", "water")
    assert done.exit_code == 2
    assert done.output.startswith("rpccluster: No such command 'lits'. Did you mean 'list'?\n")


@pytest.mark.parametrize(
    ("words", "asked", "said"),
    [
        (("4",), ["scale", "4"], "7 workers"),
        (("-2",), ["scale", "-2"], "7 workers"),
        (("plugin:water", "+1"), ["scale", "plugin:water", "+1"], "7 plugin:water"),
        (("water", "-1"), ["scale", "plugin:water", "-1"], "7 plugin:water"),
    ],
)
def test_scale(master: Master, words: tuple[str, ...], asked: list[str], said: str) -> None:
    """Means the workers unless a group is named."""
    master.methods["scale"] = lambda *params: {"wanted" if len(params) == 2 else "number_workers": 7}
    done = run("scale", *words)
    assert (done.exit_code, done.output) == (0, f"{said}\n")
    assert master.asked == [asked]
    assert run("scale", "a", "b", "c").exit_code == 2


def test_the_tail_follows_the_output(master: Master) -> None:
    """It asks for what has come since, and ends when the master does."""
    first = [{"lines": ["one", "two"], "next": 2}, {"lines": [], "next": 2}, {"lines": ["three"], "next": 3}]
    later = [{"lines": [], "next": 1}, {"lines": ["four"], "next": 1}]  # another master, which counts anew
    told = iter([*first, *later])

    def tail(name: str, number: int, since: int = 0) -> Any:
        return next(told)

    master.methods["plugin.tail"] = tail
    done = run("plugin", "tail", "-n", "100", "-f", "water")
    assert done.output.splitlines()[:4] == ["one", "two", "three", "four"]
    assert [asked[3:] for asked in master.asked] == [[], [2], [2], [3], [0], [1]]
    assert master.asked[0] == ["plugin.tail", "water", 100]


def test_the_shell_completes_names(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the plugins that there are; without a master there is nothing to complete."""

    def completed(words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        environment = {"_RPCCLUSTER_COMPLETE": "bash_complete"}
        done = runner().invoke(cli, [], prog_name="rpccluster", complete_var="_RPCCLUSTER_COMPLETE", env=environment)
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    assert completed("rpccluster --control control.sock plugin stop ") == ["water", "load"]
    assert completed("rpccluster --control control.sock plugin tail -f wa") == ["water"]
    assert completed("rpccluster --control control.sock scale plugin:l") == ["plugin:load"]
    assert completed("rpccluster --control nowhere.sock plugin stop ") == []
