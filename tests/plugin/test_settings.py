"""A plugin's process votes on settings, switches, and tells its hooks, whatever its code does meanwhile."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.ipc.messages import BootFailed, Propose, Ready, Switch, Switched, Vote, WantsToRetire
from rpccluster.live_settings import Given
from rpccluster.testing import wait_until
from tests.plugin.born import Born, born, module

PLACES = {"price": "shop.ini:3"}


class Pushed:
    """A plugin's process, and its master's side of pushes."""

    def __init__(self, child: Born) -> None:
        self.child = child
        self.attempt = 0
        self.messages: list[Any] = []

    def await_message(self, kind: type) -> Any:
        """The next message of that kind."""

        def found() -> Any:
            self.messages += self.child.messages()
            return next((each for each in self.messages if isinstance(each, kind)), None)

        message = wait_until(found)
        self.messages.remove(message)
        return message

    def propose(self, version: int, **texts: str) -> None:
        self.attempt += 1
        self.child.channel.send(Propose(self.attempt, version, texts, PLACES))

    def refusal(self, version: int, **texts: str) -> str:
        """What it says to that version; empty if it agrees."""
        self.propose(version, **texts)
        vote = self.await_message(Vote)
        assert vote.attempt == self.attempt
        return str(vote.refusal)

    def push(self, version: int, **texts: str) -> None:
        assert self.refusal(version, **texts) == ""
        self.child.channel.send(Switch(version, texts, PLACES))
        assert self.await_message(Switched) == Switched(version)


@contextlib.contextmanager
def pushed(folder: Path, text: str, run: str = "jobs:run", texts: Mapping[str, str] = PLACES) -> Iterator[Pushed]:
    """A process of that module, which has said ``begun``."""
    given = Given(1, {"price": "1"} if texts is PLACES else texts, PLACES)
    with born(PluginOptions(run=run, pythonpath=(module(folder, text),)), settings=given) as child:
        yield Pushed(child)


OF_A_CLASS = """
import time
import rpccluster

def settings_check(new, changed):
    raise ValueError("that of the module counts only where the class has none")

class Job:
    settings = {"price": rpccluster.Setting(float, 1.0)}

    def __init__(self):
        self.least = 0

    def settings_check(self, new, changed):
        if new["price"] < self.least:
            raise ValueError("too cheap")

    def settings_changed(self, old, new, changed):
        print(old["price"], new["price"], sorted(changed), rpccluster.settings.version)

    def run(self):
        print("begun")
        time.sleep(600)
"""


def test_a_class_declares_and_hooks(tmp_path: Path) -> None:
    """The hooks are methods of the instance whose ``run`` is called. A refusal names key and place."""
    with pushed(tmp_path, OF_A_CLASS, "jobs:Job") as job:
        job.child.wait_for("begun")
        job.push(2, price="2")
        job.child.wait_for("1.0 2.0 ['price'] 2")
        assert job.refusal(3, price="much") == "shop.ini:3: price: found 'much', expected a number"
        assert job.refusal(3, prise="3").startswith("prise: found an unknown setting")
        told = job.refusal(3, price="-1")
        assert told.startswith("settings_check refuses price (shop.ini:3): ValueError: too cheap\n")
        job.push(3, price="3")


def test_an_instance_may_refuse_what_it_is_born_with(tmp_path: Path) -> None:
    """Before it counts as ready."""
    with pushed(tmp_path, OF_A_CLASS, "jobs:Job", {"price": "-1"}) as job:
        assert job.child.ended() == 3
        (told,) = job.child.messages()
        assert isinstance(told, BootFailed)
        assert told.text.startswith("settings_check refuses: ValueError: too cheap")


BY_ITSELF = {
    "a thread": """
import threading

def settings_changed(old, new, changed):
    print(old["price"], new["price"], threading.get_ident() == caller)

def run(plugin):
    global caller
    caller = threading.get_ident()
    print("first", plugin.settings_changed(0))
    while plugin.settings_changed():
        print("told")
    print("over")
""",
    "greenlets": """
from gevent import monkey; monkey.patch_all()
import gevent, rpccluster

def settings_changed(old, new, changed):
    gevent.sleep(0)
    print(old["price"], new["price"], gevent.getcurrent() is caller)

def beside():
    while rpccluster.settings.version == 1:
        gevent.sleep(0.01)
    print("beside")

def run(plugin):
    global caller
    caller = gevent.getcurrent()
    gevent.spawn(beside)
    print("first", plugin.settings_changed(0))
    while plugin.settings_changed():
        print("told")
    print("over")
""",
}


@pytest.mark.parametrize("how", BY_ITSELF)
def test_a_plugin_may_run_the_hook_itself(tmp_path: Path, how: str) -> None:
    """Where it waits for the next version; the wait ends with its time, and with the plugin."""
    with pushed(tmp_path, BY_ITSELF[how]) as job:
        job.child.wait_for("first False")
        job.push(2, price="2")
        job.child.wait_for("1 2 True\ntold")
        if how == "greenlets":
            job.child.wait_for("beside")
        job.push(3, price="3")
        job.child.wait_for("2 3 True\ntold")
        job.child.signal(signal.SIGTERM)
        assert job.child.ended() == 0
        assert job.child.output.endswith("over\n")


def test_what_changes_between_two_waits_is_told_as_one(tmp_path: Path) -> None:
    """The plugin votes while it does something else."""
    text = """
import time

def settings_changed(old, new, changed):
    print(old["price"], new["price"])

def run(plugin):
    print("first", plugin.settings_changed(0))
    while plugin.settings["price"] != "3":
        sum(range(1000))
    print("told", plugin.settings_changed(0), plugin.settings_changed(0))
    time.sleep(600)
"""
    with pushed(tmp_path, text) as job:
        job.child.wait_for("first False")
        job.push(2, price="2")
        job.push(3, price="3")
        assert job.child.wait_for("told").endswith("1 3\ntold True False\n")


RAISING = """
def settings_changed(old, new, changed):
    raise ValueError("after the switch")

def run(plugin):
    print("begun", {first})
    print(plugin.{wait})
"""


@pytest.mark.parametrize(
    ("first", "wait"), [("0", "stopping.wait()"), ("plugin.settings_changed(0)", "settings_changed()")]
)
def test_one_whose_hook_raises_asks_for_a_successor(tmp_path: Path, first: str, wait: str) -> None:
    """The new version is in force all the same; the log names the key and its place."""
    with pushed(tmp_path, RAISING.format(first=first, wait=wait)) as job:
        job.child.wait_for("begun")
        job.push(2, price="2")
        assert job.await_message(WantsToRetire) == WantsToRetire("settings_changed failed")
        told = job.child.wait_for("ValueError: after the switch")
        assert "Settings: settings_changed failed: told of price (shop.ini:3)" in told


def test_a_check_that_hangs_spoils_no_later_vote(tmp_path: Path) -> None:
    """Its own is not taken for a later one, either; nor is a hook disturbed by a push that comes while it runs."""
    text = """
import time
import rpccluster

def settings_check(new, changed):
    while new["price"] == "hangs" and rpccluster.settings.version < 3:
        time.sleep(0.01)

def settings_changed(old, new, changed):
    print("begins", old["price"], new["price"])
    while rpccluster.settings.version < 3:
        time.sleep(0.01)
    print("ends")

def run():
    time.sleep(600)
"""
    with pushed(tmp_path, text) as job:
        assert job.await_message(Ready) == Ready([])
        job.propose(2, price="hangs")
        job.push(2, price="2")
        job.child.wait_for("begins 1 2")
        job.push(3, price="3")
        told = job.child.wait_for("begins 2 3\nends\n")
        assert told == "begins 1 2\nends\nbegins 2 3\nends\n"
        assert job.await_message(Vote) == Vote(1)
        job.push(4, price="4")


def test_signals_are_for_the_main_thread(tmp_path: Path) -> None:
    """The thread that listens blocks them; hooks run with none blocked, and so do programs that they start."""
    text = """
import glob, signal

def settings_check(new, changed):
    print("check", signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)

def settings_changed(old, new, changed):
    print("changed", signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)

def run(plugin):
    blocked = []
    for path in glob.glob("/proc/self/task/*/status"):
        fields = dict(line.split(":", 1) for line in open(path))
        blocked.append(bool(int(fields["SigBlk"], 16) & 1 << signal.SIGTERM - 1))
    print("begun", sorted(blocked), flush=True)
    plugin.stopping.wait()
"""
    with pushed(tmp_path, text) as job:
        assert job.child.wait_for("begun").endswith("begun [False, True]\n")
        job.push(2, price="2")
        assert job.child.wait_for("changed").count("set()") == 3


def test_one_that_closes_all_descriptors_is_left_alone(tmp_path: Path) -> None:
    """What it opens under the channel's number is its own: nothing is read from it, written or closed."""
    text = """
import os, socket, time

def run(plugin):
    os.closerange(3, 64)
    pairs = [socket.socketpair() for _ in range(30)]
    for one, _ in pairs:
        one.send(b"mine")
    print("begun", flush=True)
    plugin.stopping.is_set()
    time.sleep(0.2)
    plugin.ready()
    if os.fork() == 0:
        print("child", flush=True)
        os._exit(0)
    os.wait()
    for _, other in pairs:
        assert other.recv(8) == b"mine"
    print("whole", flush=True)
"""
    with pushed(tmp_path, text) as job:
        job.child.wait_for("begun")
        job.propose(2, price="2")
        wait_until(lambda: job.child.messages() is not None and job.child.channel.is_closed)
        assert job.child.wait_for("whole").endswith("whole\n")
        assert job.child.ended() == 0
