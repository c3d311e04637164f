"""``rpccluster call``: one call from the shell, arguments and result as JSON."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import click

from rpccluster.client import Client
from rpccluster.errors import AddressError, CallTimeout, ConnectFailed, ConnectionLost, ProtocolError, RemoteError

__all__ = ["call"]

EXIT_REMOTE_ERROR = 1
EXIT_USAGE = 2
EXIT_NO_ANSWER = 3


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=10.0, help="seconds; default 10")
@click.option("--notify", is_flag=True, help="send a notification: no result is awaited")
@click.argument("address")
@click.argument("method")
@click.argument("arguments", nargs=-1, metavar="[JSON_ARG]...", type=click.UNPROCESSED)
def call(timeout: float, notify: bool, address: str, method: str, arguments: tuple[str, ...]) -> None:
    """Call METHOD at ADDRESS and print the result as JSON."""
    params = [_parse(text) for text in arguments]
    try:
        with Client(address, timeout=timeout, connect_timeout=timeout) as client:
            if notify:
                client.notify(method, *params)
            else:
                click.echo(json.dumps(jsonable(client.call(method, *params))))
    except AddressError as error:
        _fail(str(error), EXIT_USAGE)
    except RemoteError as error:
        _fail(str(error), EXIT_REMOTE_ERROR)
    except (OverflowError, ValueError) as error:
        _fail(f"found arguments that MessagePack cannot carry: {error}", EXIT_USAGE)
    except (CallTimeout, ConnectFailed, ConnectionLost, ProtocolError) as error:
        _fail(str(error), EXIT_NO_ANSWER)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"found the argument {text!r}, expected JSON ({error})") from None


def _fail(text: str, exit_code: int) -> None:
    click.echo(f"rpccluster: {text}", err=True)
    sys.exit(exit_code)


def jsonable(value: Any) -> Any:
    """``value`` as JSON can show it: bytes as base64, keys as text, what is unknown as its text."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(jsonable(key)): jsonable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
