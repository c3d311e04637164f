"""A plugin's function is called in a process of its own, with what its section says, to its end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.ipc.messages import BootFailed, Ready
from tests.plugin.born import Born, born, module


def options(folder: Path, text: str, run: str = "jobs:run", **changes: Any) -> PluginOptions:
    """The options of a plugin with a module of its own."""
    return PluginOptions(run=run, pythonpath=(module(folder, text),), **changes)


def all_told(child: Born) -> tuple[int, str, list[Any]]:
    """Exit status, output and messages of a process that ends by itself."""
    status = child.ended()
    return status, child.output, child.messages()


@pytest.mark.parametrize(
    ("text", "args", "said"),
    [
        ("def run(): print('no', 'argument')", (), "no argument\n"),
        ("def run(args): print(args)", ("a b",), "a b\n"),
        ("def run(args): print(args['b'][1])", ({"b": [1, 2]},), "2\n"),
        ("def run(args='by default'): print(args)", (), "by default\n"),
        ("def run(args, more=1): print(args, more)", ("one",), "one 1\n"),
        ("def run(plugin, args): print(plugin.name, plugin.slot, args)", ("x",), "thing 3 x\n"),
        ("def run(args, *, plugin): print(plugin.name, dict(plugin.settings), args)", ("x",), "thing {} x\n"),
        ("def run(*rest): print(rest)", ("x",), "('x',)\n"),
        ("async def run(args): print(args)", ("soon",), "soon\n"),
        ("run = print", ("built in",), "built in\n"),
    ],
)
def test_it_is_called_with_what_it_takes(tmp_path: Path, text: str, args: tuple[Any, ...], said: str) -> None:
    """One argument or none, and the plugin where it is asked for."""
    with born(options(tmp_path, text, args=args)) as child:
        assert all_told(child) == (0, said, [Ready([])])


@pytest.mark.parametrize(
    ("text", "args", "fault"),
    [
        ("def run(a, b): pass", ("x",), "'jobs:run' takes 2 parameters besides plugin (a, b), expected one at most"),
        (
            "def run(a, plugin, b): pass",
            (),
            "'jobs:run' takes 2 parameters besides plugin (a, b), expected one at most",
        ),
        ("def run(args): pass", (), "'jobs:run' takes the argument 'args', but its section has no args"),
        ("def run(plugin): pass", ("x",), "'jobs:run' takes no argument, but its section has args"),
        ("run = 7", (), "'jobs:run' is of type int, expected a function or a class"),
        ("class run: pass", (), "the class 'jobs:run' has no method run"),
        ("import nothing_such", (), "cannot load 'jobs:run': ModuleNotFoundError: No module named 'nothing_such'\n"),
        ("", (), "cannot load 'jobs:run': AttributeError: module 'jobs' has no attribute 'run'"),
        ("raise SystemExit(3)", (), "cannot load 'jobs:run': SystemExit: 3\n"),
    ],
)
def test_a_faulty_one_is_told_before_anything_runs(
    tmp_path: Path, text: str, args: tuple[Any, ...], fault: str
) -> None:
    """As the fault of the plugin, in one message; nothing is written."""
    with born(options(tmp_path, text, args=args)) as child:
        status, output, messages = all_told(child)
    assert (status, output) == (3, "")
    assert [(type(each), each.stage) for each in messages] == [(BootFailed, "service")]
    assert messages[0].text.startswith(fault)


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit('no more')", 1, "no more\n"),
        ("raise ValueError('bad')", 1, "ValueError: bad\n"),
        ("import sys; sys.stdout.close()", 0, ""),
        ("import os; os.close(1); os.close(2)", 0, ""),
        ("import atexit; atexit.register(print, 'bye')", 0, "bye\n"),
        (
            "import threading, time; threading.Thread(target=lambda: (time.sleep(.1), print('done'))).start()",
            0,
            "done\n",
        ),
        ("import os; os.fork() or exit(0); os.wait(); print('parent')", 0, "parent\n"),
        ("import logging; logging.info('a %s', 'line')", 0, "[INFO] a line\n"),
        ("print('\\udcff'); import sys; print('later', file=sys.stderr)", 0, "\\udcff\nlater\n"),
    ],
)
def test_its_end_is_pythons(tmp_path: Path, text: str, status: int, said: str) -> None:
    """The exit status, and all that is written until then."""
    with born(options(tmp_path, f"def run(): {text}")) as child:
        found, output, messages = all_told(child)
    assert (found, messages) == (status, [Ready([])])
    assert output.endswith(said)
    assert ("rpccluster/" in output, "Traceback" in output) == (False, status == 1 and "raise V" in text)


def test_the_stop_signal_ends_a_plain_function_through_its_finally(tmp_path: Path) -> None:
    """A second one does not disturb that."""
    text = """
import time
def run():
    try:
        print("begun")
        time.sleep(60)
    finally:
        print("ending")
        time.sleep(0.2)
        print("ended")
"""
    with born(options(tmp_path, text)) as child:
        child.wait_for("begun")
        child.signal(signal.SIGTERM)
        child.wait_for("ending")
        child.signal(signal.SIGTERM)
        assert (child.ended(), child.output) == (0, "begun\nending\nended\n")


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_the_stop_signal_ends_an_import(tmp_path: Path, stop_signal: signal.Signals) -> None:
    """Whichever it is: until then the master's signals are ignored."""
    with born(options(tmp_path, "import time; print('importing'); time.sleep(60)", stop_signal=stop_signal)) as child:
        child.wait_for("importing")
        child.signal(stop_signal)
        assert child.ended() == -stop_signal


WAITING = {
    "plain": "def run(plugin): first = plugin.stopping.wait(0); print('begun'); print(first, plugin.stopping.wait(60))",
    "asyncio": "async def run(plugin): print('begun'); await plugin.wait_stopping(); print(False, True)",
    "gevent": (
        "import gevent\n"
        "def run(plugin):\n"
        "    gevent.spawn_later(0.01, print, 'begun')\n"
        "    print(plugin.stopping.wait(0), plugin.stopping.wait(60))"
    ),
    "patched": (
        "from gevent import monkey; monkey.patch_all()\n"
        "import gevent\n"
        "def run(plugin):\n"
        "    gevent.spawn_later(0.01, print, 'begun')\n"
        "    print(plugin.stopping.wait(0), plugin.stopping.wait(60))"
    ),
    "a thread": (
        "import threading\n"
        "def run(plugin):\n"
        "    threading.Thread(target=lambda: print(False, plugin.stopping.wait(60))).start(); print('begun')"
    ),
}


@pytest.mark.parametrize("how", WAITING)
def test_the_stop_signal_sets_stopping(tmp_path: Path, how: str) -> None:
    """Whatever the plugin waits with."""
    with born(options(tmp_path, WAITING[how], stop_signal=signal.SIGUSR1)) as child:
        child.wait_for("begun")
        child.signal(signal.SIGUSR1)
        assert child.ended() == 0
        assert sorted(child.output.splitlines()) == ["False True", "begun"]


ENDING = {
    "asyncio": """
import asyncio
async def run():
    try:
        print("begun")
        await asyncio.sleep(60)
    finally:
        print("ended")
""",
    "gevent": """
import gevent
def run():
    try:
        gevent.spawn_later(0.01, print, "begun")
        gevent.sleep(60)
    finally:
        print("ended")
""",
    "patched": """
from gevent import monkey; monkey.patch_all()
import threading, time
def busy():
    print("begun")
    while True:
        time.sleep(0)
def run():
    try:
        threading.Thread(target=busy, daemon=True).start()
        time.sleep(60)
    finally:
        print("ended")
""",
    "children": """
import multiprocessing, time
def work():
    try:
        print("begun")
        time.sleep(60)
    finally:
        print("ended")
def run():
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
""",
}


@pytest.mark.parametrize("how", ENDING)
def test_the_stop_signal_ends_whatever_runs_there(tmp_path: Path, how: str) -> None:
    """A loop, greenlets, a child: all by their `finally`, at the signal to the group."""
    with born(options(tmp_path, ENDING[how])) as child:
        child.wait_for("begun")
        os.killpg(child.pid, signal.SIGTERM)
        assert (child.ended(), child.output) == (0, "begun\nended\n")


def test_a_class_is_made_and_run(tmp_path: Path) -> None:
    """With the argument, and the plugin where it is asked for."""
    text = """
class Job:
    def __init__(self, args): self.args = args
    def run(self, plugin): print(self.args, plugin.name)
"""
    with born(options(tmp_path, text, "jobs:Job", args=("x",))) as child:
        assert all_told(child) == (0, "x thing\n", [Ready([])])


def test_it_says_itself_when_it_is_ready(tmp_path: Path) -> None:
    """Once, with ``ready = notify``."""
    with born(options(tmp_path, "def run(plugin): plugin.ready(); plugin.ready()", ready="notify")) as child:
        assert all_told(child) == (0, "", [Ready([])])
    with born(options(tmp_path, "def run(): pass", ready="notify")) as child:
        assert all_told(child) == (0, "", [])


def test_a_module_that_is_not_there_may_have_a_substitute(tmp_path: Path) -> None:
    """But not one that is there and fails."""
    chosen = options(tmp_path, "def run(): print('alone')", "plugins.jobs:run", also_run="jobs:run")
    with born(chosen) as child:
        assert all_told(child) == (0, "alone\n", [Ready([])])
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "jobs.py").write_text("def run(): print('inside')")
    with born(chosen) as child:
        assert all_told(child) == (0, "inside\n", [Ready([])])
    (tmp_path / "plugins" / "jobs.py").write_text("import nothing_such")
    with born(chosen) as child:
        assert child.ended() == 3
        assert "No module named 'nothing_such'" in child.messages()[0].text


def test_the_stop_signal_may_be_one_that_nobody_hears(tmp_path: Path) -> None:
    """The plugin runs all the same."""
    with born(options(tmp_path, "def run(): print('run')", stop_signal=signal.SIGKILL)) as child:
        assert all_told(child) == (0, "run\n", [Ready([])])
