"""One run of load against one port: what is called, by which program, and what it reports. Bench process only.

Every load program talks alike: it prints ``ready`` once each connection has done a call, begins at a line on
stdin, prints one line of JSON, and keeps its connections until stdin ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import msgpack

from bench import processes
from bench.build import BUILT, build
from bench.errors import BenchError

__all__ = ["Call", "Load", "encode", "opened"]

_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Call:
    """One kind of call in a load; the fields are those of ``--call`` (`bench/native/load.c`)."""

    method: str
    params: tuple[Any, ...]
    result: Any
    slots: int = 1
    first: int = 0
    count: int = 0
    limit: int = 0
    interval_us: int = 0
    piece: int = 0
    piece_interval_us: int = 0
    is_deaf: bool = False
    name: str = ""


def encode(call: Call, encoding: str) -> tuple[bytes, bytes]:
    """What follows the head of a request, and of the reply expected, in a peer's encoding."""
    if encoding == "json":
        request = json.dumps({"method": call.method, "params": list(call.params)})
        reply = json.dumps({"error": None, "result": call.result})
        return request[1:].encode(), reply[1:].encode()
    packer = msgpack.Packer(use_bin_type=encoding != "old-msgpack")
    return packer.pack(call.method) + packer.pack(call.params), packer.pack(call.result)


class Load:
    """A load program whose connections are open."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self._process = process
        self._patience_seconds = _PATIENCE_SECONDS + seconds
        self._read_line()

    def run(self, meanwhile: Callable[[], None] | None = None) -> dict[str, Any]:
        """Let it run; what it reports. ``meanwhile`` is called every few hundredths of a second."""
        _stream(self._process.stdin).write("go\n")
        _stream(self._process.stdin).flush()
        report: dict[str, Any] = json.loads(self._read_line(meanwhile))
        return report

    def _read_line(self, meanwhile: Callable[[], None] | None = None) -> str:
        output = _stream(self._process.stdout)
        give_up_at = time.monotonic() + self._patience_seconds
        while not select.select([output], [], [], 0.05 if meanwhile else self._patience_seconds)[0]:
            if meanwhile:
                meanwhile()
            if time.monotonic() > give_up_at:
                raise BenchError(f"the load said nothing for {self._patience_seconds:g} s")
        line = output.readline()
        if not line:
            self._process.wait()
            raise BenchError(_stream(self._process.stderr).read().strip() or "the load ended without a word")
        return line


@contextlib.contextmanager
def opened(
    peer_load: str,
    encoding: str,
    port: int,
    calls: list[Call],
    connections: int,
    seconds: float,
    cpus: set[int],
    python: str = sys.executable,
    folder: str = "",
) -> Iterator[Load]:
    """A load with its connections open and one call done on each; closed and ended afterwards. Raises `BenchError`.

    A client in Python runs in ``folder``, whose package it takes.
    """
    arguments = ["--port", str(port), "--connections", str(connections), "--seconds", str(seconds)]
    if peer_load in ("rpc", "http"):
        folder = ""
        command = [str(build("load")), *arguments, "--protocol", peer_load]
        for call in calls:
            command += ["--call", _option(call, encoding)]
    else:
        command = [python, "-m", f"bench.loads.{peer_load}", *arguments]
        command += ["--method", calls[0].method, "--slots", str(calls[0].slots)]
    pipe = subprocess.PIPE
    process = processes.start(command, cpus, folder, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        yield Load(process, seconds)
        _stream(process.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    finally:
        processes.end(process)
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                _stream(stream).close()


def _option(call: Call, encoding: str) -> str:
    tail, expected = encode(call, encoding)
    options = {
        "name": call.name or call.method,
        "tail": _kept(tail),
        "expect": _kept(expected),
        "slots": call.slots,
        "first": call.first,
        "count": call.count,
        "limit": call.limit,
        "interval_us": call.interval_us,
        "piece": call.piece,
        "piece_interval_us": call.piece_interval_us,
    }
    return ",".join(f"{key}={value}" for key, value in options.items()) + (",deaf" if call.is_deaf else "")


def _kept(content: bytes) -> str:
    """The path of a file that holds ``content``, from the checkout's root: a comma in it would end the option."""
    folder = BUILT / "calls"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(content).hexdigest()[:16]
    if not path.exists():
        path.write_bytes(content)
    return f".bench/calls/{path.name}"


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
