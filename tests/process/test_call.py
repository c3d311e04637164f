"""``rpccluster call``: one call from the shell against a real cluster, with the contract's exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from rpccluster.testing import call_once, wait_until

RESULT, REMOTE_ERROR, USAGE, NO_ANSWER = range(4)

SERVICE = """
class It:
    def __init__(self):
        self.noted = []
    def note(self, what):
        self.noted.append(what)
    def told(self):
        return self.noted
    def bytes(self):
        return b"\\x00\\xff"
    def keys(self):
        return {1: "one", b"k": [b"v"], "n": None}
    def same(self, *values):
        return list(values)
"""


def call(*words: str, stderr: int = subprocess.PIPE, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``rpccluster call``."""
    command = [sys.executable, "-m", "rpccluster", "call", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=60, check=False, **options)


@pytest.fixture
def address(cluster) -> str:
    """Where the demo service is."""
    return cluster(number_workers=1).address.removeprefix("tcp://")


def test_a_result_is_printed_as_json(address):
    """``sum 1 2`` prints 3; arguments are JSON, negative numbers too, or words."""
    for words, printed in [
        (("sum", "1", "2"), 3),
        (("sum", "1", "-2.5"), -1.5),
        (("echo", '{"a": [1, null, "\\u00e9"]}'), {"a": [1, None, "é"]}),
        (("echo", "null"), None),
        (("echo", "apple"), "apple"),
        (("rpc.ping",), "pong"),
    ]:
        done = call(address, *words)
        assert (done.returncode, done.stderr) == (RESULT, "")
        assert json.loads(done.stdout) == printed
    assert call(address, "sum", "1", "2").stdout == "3\n"
    assert call(f"tcp://{address}", "sum").stdout == "0\n"


def test_an_error_of_the_method_is_told(address):
    """Exit code 1, and the error as it came over the wire; a method that is not there likewise."""
    done = call(address, "fail", '"out of paper"')
    assert (done.returncode, done.stdout, done.stderr) == (REMOTE_ERROR, "", "rpccluster: RuntimeError: out of paper\n")
    done = call(address, "nope")
    assert (done.returncode, "'nope' method not found" in done.stderr) == (REMOTE_ERROR, True)
    done = call(address, "sleep")
    assert (done.returncode, "ArgumentError: " in done.stderr) == (REMOTE_ERROR, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Missing argument"),
        (("127.0.0.1:1",), "Missing argument"),
        (("nowhere", "sum"), "found 'nowhere', expected tcp://HOST:PORT"),
        (("127.0.0.1:1", "sum", "[one]"), "found the argument '[one]', expected JSON"),
        (("127.0.0.1:1", "sum", "--timeout", "soon"), "Invalid value for '--timeout'"),
        (("127.0.0.1:1", "sum", "--timeout", "0"), "Invalid value for '--timeout'"),
    ],
)
def test_a_wrong_command_line_is_told(words, message):
    """Exit code 2, before anything is sent."""
    done = call(*words)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_msgpack_cannot_carry_is_a_usage_fault(address):
    """JSON knows larger numbers than MessagePack."""
    done = call(address, "echo", str(2**64))
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "Traceback" not in done.stderr


def test_nobody_there(tmp_path):
    """Exit code 3 when no connection can be had."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # bound, but nobody listens
        done = call(f"127.0.0.1:{probe.getsockname()[1]}", "sum")
    assert (done.returncode, done.stdout) == (NO_ANSWER, "")
    assert done.stderr.startswith("rpccluster: ")
    assert call(f"unix://{tmp_path}/no.sock", "--notify", "sum").returncode == NO_ANSWER


def test_a_timeout(address):
    """Exit code 3 when the reply takes longer than ``--timeout``, and not long after it."""
    begin = time.monotonic()
    done = call("--timeout", "0.3", address, "sleep", "30")
    assert (done.returncode, done.stdout) == (NO_ANSWER, "")
    assert done.stderr.startswith("rpccluster: no reply")
    assert time.monotonic() - begin < 15
    assert call(address, "sleep", "0.1", "--timeout", "20").stdout == "0.1\n"


def test_a_server_that_hangs_up(tmp_path):
    """A connection that ends before the reply is exit code 3, too."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = subprocess.Popen(
            [sys.executable, "-m", "rpccluster", "call", f"127.0.0.1:{server.getsockname()[1]}", "sum"],
            stderr=subprocess.PIPE,
            text=True,
        )
        accepted, _ = server.accept()
        with accepted:
            accepted.recv(100)
        _, stderr = caller.communicate(timeout=60)
    assert caller.returncode == NO_ANSWER
    assert "Traceback" not in stderr


def test_a_notification_is_sent_and_not_awaited(make_cluster):
    """``--notify`` prints nothing; the method has run, errors and all."""
    made = make_cluster(service="it:It", number_workers=1, bind=None, unix_socket="it.sock")
    made.options["unix_socket"] = made.folder / "it.sock"
    made.options["bind"] = ""
    made.write_module("it", SERVICE)
    made.write_config()
    address = made.start().address
    assert address == f"unix://{made.folder}/it.sock"
    for words in (("note", '"this"'), ("no_such_method",)):
        done = call(address, "--notify", *words)
        assert (done.returncode, done.stdout, done.stderr) == (RESULT, "", "")
    wait_until(lambda: call(address, "told").stdout == '["this"]\n')
    assert json.loads(call(address, "bytes").stdout) == "AP8="
    assert json.loads(call(address, "keys").stdout) == {"1": "one", "aw==": ["dg=="], "n": None}
    assert json.loads(call(address, "same", "-1", '"-x"', "[]").stdout) == [-1, "-x", []]


def test_the_methods_are_listed(address):
    """``--discover`` shows what the demo service has, and the reserved methods."""
    done = call(address, "--discover")
    assert (done.returncode, done.stderr) == (RESULT, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["METHOD", "SIGNATURE", "DOC"]
    assert [line.split()[0] for line in lines[1:]] == sorted(call_once(f"tcp://{address}", "rpc.discover"))
    (line,) = (line for line in lines if line.startswith("sum "))
    assert re.split(r"  +", line) == ["sum", "(*numbers: float) -> float", "Add numbers."]


def test_repeated_calls_on_a_terminal(address):
    """The summary goes to stdout; when it lasts, a bar on the terminal shows how far it is, and else none."""
    for seconds, is_long in (("0.02", True), ("0.0001", False)):
        leader, terminal = pty.openpty()
        done = call(address, "--repeat", "100", "sleep", seconds, stderr=terminal)
        os.close(terminal)
        shown = read_all(leader)
        assert done.returncode == RESULT
        assert done.stdout.splitlines()[0].split() == ["calls", "100"]
        assert ("100%" in shown) == is_long


def read_all(leader: int) -> str:
    """What was written to a terminal that nobody has open any more."""
    shown = b""
    with contextlib.suppress(OSError), open(leader, "rb", buffering=0) as file:
        while data := file.read(4096):
            shown += data
    return shown.decode()


def test_arguments_from_stdin_and_bytes(address):
    """A large argument comes on stdin; bytes go there and back as base64."""
    value = [{"base64": "AP8A" * 100_000}, "text"]
    done = call(address, "--raw", "echo", "-", input=json.dumps([value]))
    assert (done.returncode, done.stderr) == (RESULT, "")
    assert json.loads(done.stdout) == value
