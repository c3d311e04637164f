"""``rpccluster call``: arguments from stdin, bytes, the list of methods, and repeated calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import Result
from client.servers import Server, reply, requests, serve

from cli.running import runner
from rpccluster.cli.calling.call import call
from rpccluster.cli.calling.latency import Latencies
from rpccluster.errors import CallTimeout, RemoteError

METHODS = {
    "sum": {"signature": "(*numbers: float) -> float", "doc": "Add numbers.\n\nAs many as you like."},
    "rpc.ping": {"signature": "() -> str", "doc": ""},
}


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers."""
    with serve() as server:
        yield server


def run(server: Server, *words: str, stdin: str | bytes = "") -> Result:
    return runner().invoke(call, [server.address, *words], input=stdin)


def printed(result: Result) -> Any:
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


# -- arguments


@pytest.mark.parametrize(
    ("words", "stdin", "result"),
    [
        (("sum", "-"), "[1, 2, 3]", 6),
        (("sum", "-"), "[]\n", 0),
        (("sum", "1", "-", "4"), "[2, 3]", 10),
        (("sum", "-"), " 5\n", 5),
        (("echo", "-"), '{"a": "é"}', {"a": "é"}),
        (("echo", "-"), "[[1, 2]]", [1, 2]),
        (("echo", '"-"'), "no JSON", "-"),
    ],
)
def test_arguments_come_from_stdin(server: Server, words: tuple[str, ...], stdin: str, result: object) -> None:
    """An array is the arguments, anything else one argument, where the - stands."""
    assert printed(run(server, *words, stdin=stdin)) == result


@pytest.mark.parametrize("stdin", ["", "1 2", "[1", b"\xff\xfe\xfd", "[" * 100_000])
def test_stdin_that_is_no_json(server: Server, stdin: str | bytes) -> None:
    """Is told, and nothing is sent."""
    result = run(server, "sum", "-", stdin=stdin)
    assert (result.exit_code, server.connections) == (2, 0)
    assert "found stdin, expected JSON" in result.stderr


@pytest.mark.parametrize(
    "value",
    [{"base64": "AP8="}, {"base64": ""}, [{"base64": "AP8="}, "AP8=", {"a": {"base64": "eA=="}}], {"base64": 1}],
)
def test_raw_bytes_go_out_and_come_back(server: Server, value: object) -> None:
    """With --raw an object of the one key base64 is bytes, wherever it stands."""
    assert printed(run(server, "--raw", "echo", "-", stdin=json.dumps([value]))) == value


def test_raw_bytes_are_bytes_to_the_server() -> None:
    """What arrives are the bytes themselves; without --raw it is the object."""
    got: list[Any] = []

    def handle(sock: Any) -> None:
        for message in requests(sock):
            got.append(message[3])
            sock.sendall(reply(message[1], b"\x00\xff"))

    with serve(handle) as server:
        assert printed(run(server, "x", '{"base64": "AP8="}', "--raw")) == {"base64": "AP8="}
        assert printed(run(server, "x", '{"base64": "AP8="}')) == "AP8="
    assert got == [[b"\x00\xff"], [{"base64": "AP8="}]]


def test_what_is_no_base64(server: Server) -> None:
    """A usage fault, before anything is sent."""
    for text in ("A", "A P8=", "é"):
        result = run(server, "--raw", "echo", json.dumps({"base64": text}))
        assert (result.exit_code, server.connections) == (2, 0)
        assert "found the argument" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sum", "-", "-"), "found the argument - twice"),
        (("sum", "--repeat", "0"), "--repeat"),
        (("sum", "--repeat", "2", "--notify"), "expected one"),
        (("--discover", "--notify"), "expected one"),
        (("--discover", "sum"), "found the method 'sum' with --discover"),
        ((), "Missing argument 'METHOD'"),
    ],
)
def test_what_does_not_go_together(server: Server, words: tuple[str, ...], said: str) -> None:
    """A usage fault, before anything is sent."""
    result = run(server, *words)
    assert (result.exit_code, server.connections) == (2, 0)
    assert said in result.stderr


# -- arguments that are words


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("apple", "apple"),
        ("", ""),
        ("two words", "two words"),
        ("1.2.3", "1.2.3"),
        ("-x", "-x"),
        ("True", "True"),
        ("a{}", "a{}"),
        ("0017", "0017"),
        ("true", True),
        ("null", None),
        ("-2.5", -2.5),
        ('"1"', "1"),
    ],
)
def test_what_is_no_json_is_a_string(server: Server, word: str, value: object) -> None:
    """A word needs no quotes for JSON inside those for the shell."""
    assert printed(run(server, "echo", word)) == value


@pytest.mark.parametrize("word", ["{", "[1,", '"open', "{apple: 1}", "['apple']", "[" * 100_000])
def test_what_begins_as_json_must_be_json(server: Server, word: str) -> None:
    """A list whose quotes the shell has taken is a fault, and no string."""
    result = run(server, "echo", word)
    assert (result.exit_code, server.connections) == (2, 0)
    assert "found the argument" in result.stderr and "expected JSON" in result.stderr


def test_a_number_of_too_many_digits_is_a_usage_fault(server: Server) -> None:
    """Python may refuse to read it; it is no string, either."""
    result = run(server, "echo", "1" * 5000)
    assert (result.exit_code, result.stdout) == (2, "")


def test_an_unknown_option_is_no_string(server: Server) -> None:
    """It is refused with the nearest one; behind -- everything is an argument."""
    result = run(server, "echo", "--notfy", "1")
    assert (result.exit_code, server.connections) == (2, 0)
    assert "No such option" in result.stderr and "--notify" in result.stderr
    assert printed(run(server, "echo", "--", "--notfy")) == "--notfy"


# -- the methods


def test_the_methods_are_listed() -> None:
    """A line each: name, signature, the first line of the doc; aligned and sorted."""

    def handle(sock: Any) -> None:
        for message in requests(sock):
            assert message[2:] == ["rpc.discover", []]
            sock.sendall(reply(message[1], METHODS))

    with serve(handle) as server:
        result = run(server, "--discover")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "METHOD    SIGNATURE                   DOC",
        "rpc.ping  () -> str",
        "sum       (*numbers: float) -> float  Add numbers.",
    ]


@pytest.mark.parametrize(
    ("listed", "told"),
    [(METHODS, "; did you mean sum?"), ({"other": {}}, ""), ({1: 2}, ""), (5, ""), (None, "")],
)
def test_the_nearest_method_is_told(listed: object, told: str) -> None:
    """Of those that the server lists, if it does."""

    def handle(sock: Any) -> None:
        for message in requests(sock):
            if message[2] == "rpc.discover" and listed is not None:
                sock.sendall(reply(message[1], listed))
            else:
                sock.sendall(reply(message[1], error=f"'{message[2]}' method not found"))

    with serve(handle) as server:
        for words in (["sun"], ["--repeat", "2", "sun"]):
            result = run(server, *words)
            assert result.exit_code == 1
            assert result.stderr.rstrip().endswith(f"'sun' method not found{told}")


def test_a_server_that_does_not_list_its_methods(server: Server) -> None:
    """Other servers have no rpc.discover, or one of their own."""
    result = run(server, "--discover")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'rpc.discover' method not found" in result.stderr


@pytest.mark.parametrize(
    "answer", [None, 5, ["sum"], {"sum": "doc"}, {"sum": {"doc": None}}, {"sum": {"doc": "", "signature": 1}}]
)
def test_a_server_whose_discover_is_another(answer: object) -> None:
    """What is no list of methods as ours is shown as it came."""
    with serve(lambda sock: [sock.sendall(reply(message[1], answer)) for message in requests(sock)] and None) as server:
        assert printed(run(server, "--discover")) == answer


def test_a_server_cannot_command_the_terminal() -> None:
    """Nothing that it says is shown but as lines of text."""
    escape, shown = "\x1b]0;title\x07\u202e", "\\x1b]0;title\\x07\\u202e"

    def handle(sock: Any) -> None:
        for message in requests(sock):
            if message[2] == "rpc.discover":
                sock.sendall(reply(message[1], {"sum": {"signature": f"(){escape}\nfake", "doc": f"Adds{escape}"}}))
            else:
                sock.sendall(reply(message[1], error=f"ValueError: ä{escape}\nmore\r"))

    with serve(handle) as server:
        assert run(server, "sum").stderr == f"rpccluster: ValueError: ä{shown}\nmore\\r\n"
        assert run(server, "--discover").stdout.splitlines()[1:] == [f"sum     (){shown}\\nfake  Adds{shown}"]
        assert "\x1b" not in run(server, "echo", '"x"').stdout


# -- repeated calls


def figures(result: Result) -> dict[str, float]:
    return {line.split()[0]: float(line.split()[1]) for line in result.stdout.splitlines()}


def test_repeated_calls_are_summed_up(server: Server) -> None:
    """Each call is made, over one connection, and the figures are in order."""
    result = run(server, "--repeat", "500", "sum", "1")
    assert (result.exit_code, result.stderr, server.connections) == (0, "", 1)
    found = figures(result)
    assert list(found) == ["calls", "errors", "calls/s", "min", "mean", "p50", "p95", "p99", "max"]
    assert (found["calls"], found["errors"]) == (500, 0)
    assert 0 < found["min"] <= found["p50"] <= found["p95"] <= found["p99"] <= found["max"]
    assert found["min"] <= found["mean"] <= found["max"]
    assert re.search(r"^p50 +[\d.]+ ms$", result.stdout, re.MULTILINE)


def test_failed_calls_are_counted() -> None:
    """Errors are counted and the calls go on; the worst of them decides the exit code."""

    def handle(sock: Any) -> None:
        for number, message in enumerate(requests(sock)):
            if number % 3 == 0:
                sock.sendall(reply(message[1], error=f"ValueError: {number}"))
            elif message[2] == "slow" and number == 4:
                continue
            else:
                sock.sendall(reply(message[1], 1))

    with serve(handle) as server:
        result = run(server, "--repeat", "9", "quick")
        assert (result.exit_code, result.stderr) == (1, "rpccluster: ValueError: 6\n")
        assert (figures(result)["calls"], figures(result)["errors"]) == (9, 3)
        result = run(server, "--repeat", "9", "--timeout", "0.5", "slow")
        assert (result.exit_code, result.stderr) == (3, "rpccluster: no reply came within the call's timeout\n")
        assert (figures(result)["calls"], figures(result)["errors"]) == (9, 4)


def test_without_a_server_it_ends_early() -> None:
    """There is no sense in a thousand attempts to connect, or in talking to what is no server."""
    with serve() as server:
        pass
    result = run(server, "--repeat", "1000", "sum")
    assert (result.exit_code, figures(result)["errors"]) == (3, 1)
    with serve(lambda sock: sock.recv(100) and sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        result = run(server, "--repeat", "1000", "sum")
    assert (result.exit_code, list(figures(result))) == (3, ["calls", "errors", "calls/s"])


def test_what_cannot_be_sent_is_not_repeated(server: Server) -> None:
    """A usage fault is one, with --repeat too."""
    result = run(server, "--repeat", "9", "echo", str(2**64))
    assert (result.exit_code, result.stdout) == (2, "")


def test_percentiles_by_nearest_rank() -> None:
    """The figures of a hundred calls of 1 to 100 ms."""
    latencies = Latencies()
    latencies.seconds.extend(number / 1e3 for number in range(100, 0, -1))
    latencies.elapsed_seconds = 5.05
    assert latencies.summary().splitlines() == [
        "calls   100",
        "errors  0",
        "calls/s 19.8",
        "min     1.000 ms",
        "mean    50.500 ms",
        "p50     50.000 ms",
        "p95     95.000 ms",
        "p99     99.000 ms",
        "max     100.000 ms",
    ]


def test_the_error_to_end_with() -> None:
    """No answer weighs more than an error of the method; the first of those without an answer counts."""
    latencies = Latencies()
    first = CallTimeout("first")
    for error in (RemoteError("A", "a"), first, RemoteError("B", "b"), CallTimeout("second")):
        latencies.fail(error)
    assert (latencies.errors, latencies.error) == (4, first)


def test_help_is_complete() -> None:
    """Every option and the - are explained."""
    shown = runner().invoke(call, ["--help"]).stdout
    assert all(option.help in " ".join(shown.split()) for option in call.params if isinstance(option, click.Option))
    assert "The argument - stands for" in shown
