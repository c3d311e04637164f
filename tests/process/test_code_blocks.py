"""Every code block of the README and the documents works as it stands: somebody reads a document, and does all of it.

`tests/code_blocks.py` finds the blocks. The reader has a folder and a home of his own, and does one document from its
first block to its last in one shell and one Python; programs listen at ports that the kernel picks. The READMEs of the
examples are for `test_examples.py`, which compares what they print.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from code_blocks import Block, code_blocks
from programs import free_port, missing, needed

from rpccluster.cli.main import cli

CHECKOUT = Path(__file__).resolve().parent.parent.parent
README = CHECKOUT / "README.md"
OTHERS = [CHECKOUT / "SECURITY.md", CHECKOUT / "CHANGELOG.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
OTHERS = [document for document in OTHERS if any(block.is_run for block in code_blocks(document))]
ADDRESSES = re.compile(r"127\.0\.0\.1:1880\d")  # where the documents serve
PORTS = re.compile(r"(?<=127\.0\.0\.1:)1844\d")  # where their other programs listen
NEEDED = {"haproxy", "nvim"}
PRINTS = re.compile(r"# prints ([^:\n]+)(?::.*)?$", re.MULTILINE)
PROGRAM = re.compile(r"(?:bin/)?rpccluster\b(.*)")
NOT_SERVING = {*cli.commands, "--check-config", "--print-config", "--version", "-V", "--help", "-h", "-D", "--daemon"}
SECONDS = 60
END = "end of the command:"


class Shell:
    """A shell that is typed into, one line after another."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["sh"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )

    def type(self, line: str) -> tuple[int, str]:
        """Type a line; return its exit code and all that it printed."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{line}\ncode=$?; echo; echo '{END}' $code\n")
        printed = []
        for told in self._process.stdout:
            if told.startswith(END):
                return int(told.split()[-1]), "".join(printed)[:-1]
            printed.append(told)
        raise AssertionError(f"the shell ended at: {line}")

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(SECONDS)
        self._process.stdout.close()


class Reader:
    """Somebody who does what a document says."""

    def __init__(self, folder: Path, home: Path, runtime_folder: str) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        self._ports: dict[str, str] = {}
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("RPCCLUSTER", "PYTEST"))}
        environment["HOME"] = str(home)
        environment["XDG_RUNTIME_DIR"] = runtime_folder
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        environment["RPCCLUSTER_CMD_ARGS"] = f"-b {self._address}"
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # its date has whole seconds, and code changes twice in one
        self.shell = Shell(folder, environment)
        self._names: dict[str, Any] = {"__name__": "document"}
        self._pid: str | None = None

    def follow_all(self, document: Path) -> None:
        """Do a whole document. Skips the test if a program that it needs is missing."""
        blocks = [block for block in code_blocks(document) if block.is_run or block.name]
        for program in NEEDED & {word for block in blocks if block.language == "sh" for word in block.text.split()}:
            needed(program)
        for block in blocks:
            self.follow(block)

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.name:
            self.save(block)
        elif block.language == "sh":
            for line in block.lines():
                self.type(line)
        elif block.language == "python":
            self.run(block)

    def save(self, block: Block) -> None:
        """Write the file where the reader is, and look at it as its language allows."""
        assert block.name
        (self._where() / block.name).write_text(self._at_own_ports(block.text))
        if block.language == "ini":
            self._done(self._without_workers(f"rpccluster -c {block.name} --check-config"))
        if block.name.startswith("test_"):
            self._done(f"{sys.executable} -m pytest -q -p no:cacheprovider {block.name}")

    def type(self, line: str) -> None:
        """Type a line of a shell block. A line that serves is left running; one that prints is tried until it does."""
        served = PROGRAM.fullmatch(line.partition(" #")[0].strip())
        if served and not NOT_SERVING.intersection(served[1].split()):
            self.serve(line)
            return
        wanted = PRINTS.search(line)
        deadline = time.monotonic() + SECONDS
        printed = self._done(self._at_own_ports(line))
        while wanted and printed.strip() != wanted[1].strip():
            assert time.monotonic() < deadline, f"{line}: does not print {wanted[1]}, but {printed}"
            printed = self._done(self._at_own_ports(line))
        if served and "stop" in served[1].split() and "plugin" not in served[1].split():
            self.stop()

    def serve(self, line: str) -> None:
        """Start a cluster in the background, in the place of the one that is there, and wait until it serves."""
        self.stop()
        line = self._without_workers(line.partition(" #")[0])
        code, printed = self.shell.type(f"{line} >served.log 2>&1 & echo $!")
        assert code == 0
        self._pid = printed.strip()
        deadline = time.monotonic() + SECONDS
        while True:
            code, printed = self.shell.type("rpccluster status --json")
            if code == 0 and all(group["state"] == "ready" for group in json.loads(printed)["groups"]):
                break
            log = self._where() / "served.log"
            assert time.monotonic() < deadline, f"{line}: does not serve: {log.read_text()[-2000:]}"

    def run(self, block: Block) -> None:
        """Run a block of Python, in a coroutine if it awaits."""
        if ADDRESSES.search(block.text) and self._pid is None:
            self.serve("rpccluster shop:Shop")
        text = self._at_own_ports(block.text)
        if re.search(r"\bawait\b|\basync with\b", text):
            text = f"async def main():\n{textwrap.indent(text, '    ')}\nimport asyncio\nasyncio.run(main())"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, str(block), "exec", dont_inherit=True), self._names)
        assert printed.getvalue().splitlines() == [wanted.strip() for wanted in PRINTS.findall(block.text)]

    def stop(self) -> None:
        """Stop the cluster that runs."""
        if self._pid is not None:
            self.shell.type(f"kill {self._pid}; wait {self._pid}")
        self._pid = None

    def _without_workers(self, line: str) -> str:
        """Leave out the address of the tests where the configuration has no service, and so nothing to serve."""
        named = re.search(r"-c (\S+\.ini)", line)
        if named and not re.search(r"^service\b", (self._where() / named[1]).read_text(), re.MULTILINE):
            return f"RPCCLUSTER_CMD_ARGS= {line}"
        return line

    def _where(self) -> Path:
        return Path(self._done("pwd").strip())

    def _at_own_ports(self, text: str) -> str:
        text = ADDRESSES.sub(self._address, text)
        return PORTS.sub(lambda found: self._ports.setdefault(found[0], str(free_port())), text)

    def _done(self, line: str) -> str:
        code, printed = self.shell.type(line)
        if code and line.startswith("pip ") and "No matching distribution" in printed:
            missing(f"pip cannot reach its packages: {printed[-500:]}")
        assert code == 0, f"{line}: ended with {code}: {printed[-2000:]}"
        return printed


@contextlib.contextmanager
def reader_in(folder: Path) -> Iterator[Reader]:
    """A reader who begins in a folder, and whose home is the one above it."""
    with tempfile.TemporaryDirectory(prefix="rpc-", dir="/tmp") as sockets:  # whose paths have to be short
        reader = Reader(folder, folder.parent, sockets)
        try:
            yield reader
        finally:
            reader.stop()
            reader.shell.type("for file in *.pid; do kill $(cat $file); done")  # daemons of a document that went wrong
            reader.shell.close()


@pytest.mark.timeout(600)  # pip takes its time
def test_all_that_the_readme_says_can_be_done(tmp_path: Path) -> None:
    """In a copy of the checkout, from `pip install` in an empty environment on."""
    ignored = shutil.ignore_patterns(".*", "build", "run", "node_modules", "*.egg-info", "__pycache__")
    with reader_in(Path(shutil.copytree(CHECKOUT, tmp_path / "checkout", ignore=ignored))) as reader:
        reader.follow_all(README)


@pytest.mark.parametrize("document", OTHERS, ids=lambda path: path.name)
def test_all_that_a_document_says_can_be_done(document: Path, tmp_path: Path) -> None:
    """In a folder with nothing but the README's shop."""
    (tmp_path / "folder").mkdir()
    shop = [block for block in code_blocks(README) if block.name == "shop.py"][-1]
    (tmp_path / "folder" / "shop.py").write_text(shop.text)
    with reader_in(tmp_path / "folder") as reader:
        reader.follow_all(document)
