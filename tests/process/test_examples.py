"""The examples run as their READMEs say, but at a port that the kernel picks."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from programs import needed

from rpccluster import Client, RemoteError
from rpccluster.testing import RunningCluster, wait_until

CHECKOUT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = CHECKOUT / "examples"
SECONDS = 30
FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
PROGRAMS = {"bin/rpccluster": [sys.executable, "-m", "rpccluster"], ".venv/bin/python": [sys.executable]}


def commands(example: str) -> list[list[str]]:
    """What the README of an example has one type: a command in each block."""
    blocks = re.findall(r"^```sh\n(.+)\n```", (EXAMPLES / example / "README.md").read_text(), re.MULTILINE)
    return [shlex.split(block) for block in blocks]


def serve(example: str, folder: Path) -> Iterator[RunningCluster]:
    """The example's cluster, by its own configuration."""
    program, flag, config = commands(example)[0]
    assert (program, flag) == ("bin/rpccluster", "-c")
    running = RunningCluster(folder, {})
    running.config = CHECKOUT / config
    try:
        yield running.start("-b", "tcp://127.0.0.1:0", "--control", str(running.options["control_socket"]))
    finally:
        running.stop()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the shop, which several clients call."""
    for running in serve("shop", tmp_path_factory.mktemp("shop")):
        yield running.address.partition("://")[2]


def output(command: list[str], address: str, folder: Path = CHECKOUT) -> list[str]:
    """The lines that a client's command prints, when it calls ``address``."""
    program, *words = command
    assert "127.0.0.1:18800" in words
    words = [address if word == "127.0.0.1:18800" else word for word in words]
    done = subprocess.run(
        [*PROGRAMS.get(program, [program]), *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_every_example_is_listed_and_told() -> None:
    """Each folder has its README, and the README of all leads to it."""
    listed = re.findall(r"\]\((\w+)/README\.md\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    assert all(commands(example) and f"test_{example}" in globals() for example in listed)


def test_hello(tmp_path: Path) -> None:
    for running in serve("hello", tmp_path):
        assert output(commands("hello")[1], running.address) == ['"Hello, World!"']


def test_shop(shop: str) -> None:
    assert output(commands("shop")[1], shop) == [
        "An apple costs 30",
        "Ordered: 2 pieces for 0.60",
        "Ordered: 2 pieces for 0.90",
        "Ordered: 2 pieces for 0.24",
        "All totals together: 5994000",
        "Refused: KeyError 'melon'",
        "Not waited for: the order may go through all the same",
    ]


def test_aio_client(shop: str) -> None:
    assert output(commands("aio_client")[0], shop) == [
        "A pear costs 45",
        "The last of 100 orders: 99 pieces for 29.70",
        "Refused: KeyError 'melon'",
        "Not waited for",
    ]


def test_neovim(shop: str) -> None:
    needed("nvim")
    assert output(commands("neovim")[0], shop) == [
        "An apple costs 30",
        "Ordered: 3 pieces for 1.02",
        "Refused: KeyError: 'melon'",
        "A plum costs 12",
    ]


def test_hot_reload(tmp_path: Path) -> None:
    """In a copy, whose file is edited. The event reaches the tasks that run; the replacement leaves no gap."""
    copy = tmp_path / "copy"
    shutil.copytree(EXAMPLES / "hot_reload", copy)
    config = copy / "hot_reload.ini"
    config.write_text(config.read_text().replace("seconds = 1", "seconds = 0.1"))
    running = RunningCluster(tmp_path, {})
    running.config = config
    everybody = {"service", "thread", "loop", "replaced"}
    try:
        running.start("-b", "tcp://127.0.0.1:0", "--control", str(running.options["control_socket"]))
        wait_until(lambda: {said.who for said in all_said(running)} == everybody)
        config.write_text(config.read_text().replace("words = tick", "words = tock"))
        wait_until(lambda: {said.who for said in all_said(running) if said.text == "tock"} == everybody)
        assert output(commands("hot_reload")[2], running.address) == ['"tock"']
        running.wait_log("Plugin replaced exiting")
        log = running.log_text()
        assert log.index("replaced says tock") < log.index("Retiring plugin replaced")
        times = [said.at for said in all_said(running) if said.who == "replaced"]
        gaps = [after - before for before, after in zip(times, times[1:])]
        assert max(gaps) < (0.15 if FULL_SCALE else 1.0)
        with running.control() as control:
            with pytest.raises(RemoteError, match="expected more than 0 seconds"):
                control.call("config.set", {"settings.every": "0"})
            control.call("config.set", {"settings.every": "600"})  # from now on the event alone wakes them
            late = [push(running, control, f"word{number}") for number in range(50 if FULL_SCALE else 3)]
    finally:
        running.stop()
    spread = statistics.median(last - first for first, last in late)
    whole = statistics.median(last for _, last in late)
    told = f"the event within {spread * 1000:.1f} ms, after {whole * 1000:.1f} ms with the vote and the history"
    print(f"longest gap {max(gaps) * 1000:.0f} ms; {told} (medians)")
    assert spread < (0.05 if FULL_SCALE else 5.0)


class Said(NamedTuple):
    """A line of the example's task."""

    at: float
    who: str
    text: str


def all_said(running: RunningCluster) -> list[Said]:
    """All that the tasks have said so far."""
    found = re.findall(r"(\d+\.\d{3}) (\w+) says ([a-z]+\d*)", running.log_text())
    return [Said(float(at), who, text) for at, who, text in found]


def push(running: RunningCluster, control: Client, text: str) -> tuple[float, float]:
    """Change the text. Returns the seconds until the first task that waits for the event says it, and the last one."""
    begun = time.time()
    control.call("config.set", {"settings.text": text})
    own = {"service", "thread", "loop"}
    wait_until(lambda: {said.who for said in all_said(running) if said.text == text} == own)
    times = [said.at - begun for said in all_said(running) if said.text == text]
    return min(times), max(times)


def test_queue(npm_client_example: Path, tmp_path: Path) -> None:
    """As the README says, at another port; a consumer is killed in the middle. In a copy, for what npm would bring."""
    manage, produce, consume, install, in_javascript, terminate = commands("queue")
    assert install == ["npm", "install", "--prefix", "examples/queue"]
    here = tmp_path / "examples" / "queue"
    shutil.copytree(EXAMPLES / "queue", here, ignore=shutil.ignore_patterns("node_modules"))
    (here / "node_modules").symlink_to(npm_client_example / "node_modules")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    produce = [*produce[:-1], produce[-1] if FULL_SCALE else "500"]
    manager = begin(manage, address, tmp_path)
    try:
        assert manager.stdout is not None
        assert manager.stdout.readline() == f"The queue is at {address}\n"
        assert output(produce, address, tmp_path) == [f"Put {produce[-1]} jobs"]
        victim = begin(consume, address, tmp_path)
        assert output(in_javascript, address, tmp_path) == ["Done: 100 jobs"]
        victim.kill()
        victim.communicate(timeout=SECONDS)
        rest = output(consume, address, tmp_path)
        assert re.fullmatch(r"Done: \d+ jobs", rest[0])
        assert output(terminate, address, tmp_path) == ["All jobs were done"]
        assert manager.communicate(timeout=SECONDS)[0] == "The manager has ended\n"
    finally:
        manager.kill()
        manager.communicate()


def begin(command: list[str], address: str, folder: Path) -> subprocess.Popen[str]:
    """Start a command of an example, at ``address``."""
    program, *words = command
    words = [address if word == "127.0.0.1:18800" else word for word in words]
    return subprocess.Popen([*PROGRAMS.get(program, [program]), *words], cwd=folder, stdout=subprocess.PIPE, text=True)


def test_node_client(shop: str, npm_client_example: Path, tmp_path: Path) -> None:
    """In a copy, where what `npm install` would bring is put."""
    install, run = commands("node_client")
    assert install == ["npm", "install", "--prefix", "examples/node_client"]
    here = tmp_path / "examples" / "node_client"
    shutil.copytree(EXAMPLES / "node_client", here, ignore=shutil.ignore_patterns("node_modules"))
    (here / "node_modules").symlink_to(npm_client_example / "node_modules")
    assert output(run, shop, tmp_path) == [
        "An apple costs 30",
        "Ordered: [ '2 pieces for 0.90', '2 pieces for 0.24' ]",
        "Refused: KeyError: 'melon'",
    ]
