"""The examples run as their READMEs say, but at a port that the kernel picks."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import needed

from rpccluster.testing import RunningCluster

CHECKOUT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = CHECKOUT / "examples"
SECONDS = 30
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
