"""``rpccluster call``: calls from the shell, with arguments and result as JSON. The process that the user starts."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any

import click

from rpccluster.cli.calling.latency import repeat
from rpccluster.client import Client
from rpccluster.config.authkeys import read_keys
from rpccluster.errors import (
    AddressError,
    ArgumentError,
    AuthenticationFailed,
    CallTimeout,
    ConnectFailed,
    ConnectionLost,
    NoMethodError,
    ProtocolError,
    RemoteError,
    RPCClusterError,
)
from rpccluster.log import escaped

__all__ = ["call", "faults_told"]

EXIT_REMOTE_ERROR = 1
EXIT_USAGE = 2
EXIT_NO_ANSWER = 3

_STDIN = "-"
_TAG = "base64"
_GLANCE_SECONDS = 1.0  # for the list of the methods, where it is a help in an error
_JSON_BEGINS = ("{", "[", '"')  # what begins so is meant to be JSON
_TAKEN_APART = re.compile(r"\w+:")  # bash makes a:1 b:2 of {"a":1,"b":2}
_BRACES = "; put single quotes around a JSON object: bash takes its braces apart"
_LONG_OPTION = re.compile(r"--[a-z][^=]*")


class _Call(click.Command):
    """A command that refuses unknown options before ``--``; behind it, a word with dashes is a string.

    A word with one dash is always one, unless it is ``-h`` and alone: an argument ``-hot`` must not show the help.
    """

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        args = ["--help"] if args == ["-h"] else args
        known = {name for each in self.get_params(context) for name in each.opts}
        for word in args[: args.index("--")] if "--" in args else args:
            option = _LONG_OPTION.match(word)
            if option and option[0] not in known:
                near = get_close_matches(option[0], known)
                raise click.NoSuchOption(option[0], possibilities=near, ctx=context)
        return super().parse_args(context, args)


@click.command(cls=_Call, context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=10.0, help="seconds; default 10")
@click.option("--notify", is_flag=True, help="send a notification and await no result")
@click.option("--raw", is_flag=True, help='bytes are {"base64": "..."}, in arguments and in the result')
@click.option("--repeat", "times", type=click.IntRange(min=1), metavar="N", help="call N times; show the latencies")
@click.option("--authkey-file", "keys", metavar="PATH", help="file of keys; its first one is proved to the server")
@click.option("--discover", is_flag=True, help="list the methods with their signatures and docs")
@click.argument("address")
@click.argument("method", default="")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...", type=click.UNPROCESSED)
def call(
    timeout: float,
    notify: bool,
    raw: bool,
    times: int | None,
    keys: str | None,
    discover: bool,
    address: str,
    method: str,
    arguments: tuple[str, ...],
) -> None:
    """Call METHOD at ADDRESS and print the result as JSON.

    An ARGUMENT is JSON, or else a string; one that begins with {, [ or " must be JSON.
    The argument - stands for arguments on stdin: a JSON array of them, or one JSON value as the only argument.
    """
    if notify + (times is not None) + discover > 1:
        raise click.UsageError("found two of --notify, --repeat and --discover, expected one")
    if discover and method:
        raise click.UsageError(f"found the method {method!r} with --discover, expected none")
    if not discover and not method:
        raise click.UsageError("Missing argument 'METHOD'.")
    params = list(_params(arguments, raw))
    told = faults_told(arguments)
    connect = partial(Client, timeout=timeout, connect_timeout=timeout, authkey=_first_key(keys))
    with told, connect(address) as client, _nearest(client, method):
        if discover:
            click.echo(_listed(client.call("rpc.discover")))
        elif notify:
            client.notify(method, *params)
        elif times is not None:
            _repeat(client, times, method, params)
        else:
            click.echo(json.dumps(jsonable(client.call(method, *params), raw)))


def _first_key(path: str | None) -> tuple[str, bytes] | None:
    if path is None:
        return None
    found = read_keys(os.path.abspath(path))
    if found.problem:
        raise click.UsageError(found.problem)
    return found.keys[0]


def _repeat(client: Client, times: int, method: str, params: list[Any]) -> None:
    latencies = repeat(lambda: client.call(method, *params), times)
    click.echo(latencies.summary())
    if latencies.error is not None:
        raise latencies.error


@contextlib.contextmanager
def faults_told(words: tuple[str, ...]) -> Iterator[None]:
    """Turn the errors of a call with the arguments ``words`` into a line on stderr and the exit code of their kind."""
    try:
        yield
    except AddressError as error:
        _fail(str(error), EXIT_USAGE)
    except ArgumentError as error:
        is_taken_apart = sum(_TAKEN_APART.match(word) is not None for word in words) > 1
        _fail(f"{error}{_BRACES if is_taken_apart else ''}", EXIT_REMOTE_ERROR)
    except RemoteError as error:
        _fail(str(error), EXIT_REMOTE_ERROR)
    except (OverflowError, ValueError) as error:
        _fail(f"cannot pack the arguments: {error}", EXIT_USAGE)
    except AuthenticationFailed as error:
        _fail(f"{error}; a key is read from --authkey-file", EXIT_NO_ANSWER)
    except ConnectFailed as error:
        _fail(f"cannot connect: {error}; `rpccluster status` shows where a cluster listens", EXIT_NO_ANSWER)
    except (CallTimeout, ConnectionLost, ProtocolError) as error:
        _fail(str(error), EXIT_NO_ANSWER)


@contextlib.contextmanager
def _nearest(client: Client, method: str) -> Iterator[None]:
    """Add the nearest method to the error of one that the server does not have, if it lists those that it has."""
    try:
        yield
    except NoMethodError as error:
        try:
            known = client.call("rpc.discover", timeout=_GLANCE_SECONDS)
            near = get_close_matches(method, [name for name in known if isinstance(name, str)], 1)
        except (RPCClusterError, TypeError):
            raise error from None
        hint = "".join(f"; did you mean {name}?" for name in near)
        raise NoMethodError(error.type, error.message + hint) from None


def _fail(text: str, exit_code: int) -> None:
    click.echo(f"rpccluster: {_shown(text)}", err=True)
    sys.exit(exit_code)


def _shown(text: str) -> str:
    """Escape a server's text, so that a terminal gets nothing but lines of text."""
    return "\n".join(map(_shown_in_a_line, text.split("\n")))


def _shown_in_a_line(text: str) -> str:
    return escaped(text, len(text))


# -- the methods


def _listed(methods: Any) -> str:
    """Write a line for each method: name, signature, first line of the docstring. Any other answer becomes JSON."""
    rows = [("METHOD", "SIGNATURE", "DOC")]
    try:
        for name, told in sorted(methods.items()):
            doc = told["doc"].partition("\n")[0]
            rows.append((_shown_in_a_line(name), _shown_in_a_line(told["signature"]), _shown_in_a_line(doc)))
    except (AttributeError, KeyError, TypeError):
        return json.dumps(jsonable(methods))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {signature:{widths[1]}}  {doc}".rstrip() for name, signature, doc in rows)


# -- values


def _params(words: tuple[str, ...], raw: bool) -> Iterator[Any]:
    if words.count(_STDIN) > 1:
        raise click.UsageError(f"found the argument {_STDIN} twice, expected it once")
    for word in words:
        if word == _STDIN:
            value = _parse(sys.stdin.buffer.read(), "stdin", raw)
            yield from value if isinstance(value, list) else [value]
        else:
            yield _value(word, raw)


def _value(word: str, raw: bool) -> Any:
    """Return the value of an argument: JSON, or a string that need not be quoted."""
    if not word.startswith(_JSON_BEGINS):
        try:
            return json.loads(word)
        except json.JSONDecodeError:
            return word
        except ValueError:  # it is JSON, but a number of more digits than Python reads
            pass
    return _parse(word, f"the argument {word!r}", raw)


def _parse(text: str | bytes, what: str, raw: bool) -> Any:
    try:
        return json.loads(text, object_hook=_untagged if raw else None)
    except (ValueError, RecursionError) as error:
        hint = "" if what == "stdin" else "; put single quotes around it, so that the shell leaves the double ones"
        raise click.UsageError(f"found {what}, expected JSON ({error}){hint}") from None


def _untagged(value: dict[str, Any]) -> Any:
    """Decode the one-key object that stands for bytes under ``--raw``; return any other object as it is."""
    if list(value) == [_TAG] and isinstance(value[_TAG], str):
        return base64.b64decode(value[_TAG], validate=True)
    return value


def jsonable(value: Any, raw: bool = False) -> Any:
    """Convert ``value`` to what JSON can hold.

    Bytes become base64, tagged if ``raw``; keys, and values of other types, become text.
    """
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(jsonable(key)): jsonable(each, raw) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(each, raw) for each in value]
    if isinstance(value, bytes):
        text = base64.b64encode(value).decode("ascii")
        return {_TAG: text} if raw else text
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
