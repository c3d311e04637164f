"""Runs clients of other libraries: each prints, as JSON, what it got, and that is compared. Test process only."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from rpccluster.address import TCPAddress, parse_address
from rpccluster.testing import RunningCluster

__all__ = ["WANTED", "check", "tcp"]

SECONDS = 30
#: What each client must get: beside this `error`, the text of the error of a method that is not there.
WANTED = {
    "sum": 3,
    "echo": {"a": [1, None, "ü", 2.5], "b": {"c": "x" * 70_000}},
    "many": list(range(500)),
    "after": "pong",
}


def tcp(running: RunningCluster) -> tuple[str, int]:
    address = parse_address(running.address)
    assert isinstance(address, TCPAddress)
    return address.host, address.port


def check(
    command: list[str],
    running: RunningCluster,
    error: str = "'nosuch' method not found",
    folder: Path | None = None,
    wanted: dict[str, object] | None = None,
) -> None:
    """Run a client and compare what it got. It has host, port and values as arguments, and in the environment."""
    wanted = WANTED if wanted is None else wanted
    host, port = tcp(running)
    arguments = [host, str(port), json.dumps(wanted)]
    environment = dict(os.environ, **dict(zip(("HOST", "PORT", "WANTED"), arguments)))
    done = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    text = found.pop("error")
    assert text == error, text
    assert found == wanted
