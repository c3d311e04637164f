"""Tells a fault of the command line in two lines: what is wrong with what may be meant, and the form of the command.

The process that the user starts. Parses nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from difflib import get_close_matches

import click

from rpccluster.config import OPTIONS

__all__ = ["told_shortly"]


_GEVENT = "Workers run on gevent; a method runs in a thread, on asyncio or in a pool if it is marked so."
#: Flags of gunicorn's that have another name, or no need, here.
_OF_GUNICORN = {
    "-k": _GEVENT,
    "--worker-class": _GEVENT,
    "--access-logfile": "It is a key of the configuration file: access_log = FILE.",
    "--access-log": "It is a key of the configuration file: access_log = FILE.",
    "--error-logfile": "Here it is --log-file.",
    "--statsd-host": "Counters are at /metrics: section [metrics] of the configuration file.",
    "--certfile": "TLS is that of a proxy in front: docs/tls.md.",
    "--keyfile": "TLS is that of a proxy in front: docs/tls.md.",
    "--preload": "Each worker imports the service, so that a reload takes new code.",
    "--graceful-timeout": "It is a key of the configuration file: graceful_timeout = VALUE.",
}


class _Fault(click.ClickException):
    exit_code = click.UsageError.exit_code

    def show(self, file: object = None) -> None:
        click.echo(f"rpccluster: {self.message}", err=True)


@contextlib.contextmanager
def told_shortly() -> Iterator[None]:
    """Turn click's usage errors into a `_Fault`."""
    try:
        yield
    except click.UsageError as error:
        if "\n" in error.format_message():  # the help, of a group that was given no command
            raise
        lines = [_message(error)]
        if error.ctx is not None:
            pieces = [error.ctx.command_path, *error.ctx.command.collect_usage_pieces(error.ctx)]
            lines.append(f"usage: {' '.join(pieces)}; {error.ctx.command_path} --help tells more")
        raise _Fault("\n".join(lines)) from error


def _message(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        told = _OF_GUNICORN.get(error.option_name)
        where = f" {told}" if told else _where(error.ctx, error.option_name) or _near(error.ctx, error.option_name)
        return f"No such option {error.option_name!r}.{where}"
    return error.format_message()


def _where(context: click.Context, flag: str) -> str:
    """Say where an option belongs that this command does not have; empty if nowhere."""
    key = flag.lstrip("-").replace("-", "_")
    if key in OPTIONS and not OPTIONS[key].flags:
        return f" It is a key of the configuration file: {key} = VALUE."
    program = context.find_root().command
    if context.command is not program:
        return f" It is for serving, and {context.info_name} does not serve." if _has(program, flag) else ""
    owners = [name for name, each in getattr(program, "commands", {}).items() if _has(each, flag)]
    return f" It stands behind its command: rpccluster {owners[0]} {flag}." if owners else ""


def _near(context: click.Context, flag: str) -> str:
    flags = [name for each in context.command.get_params(context) for name in each.opts if name.startswith("-")]
    return "".join(f" Did you mean {near!r}?" for near in get_close_matches(flag, flags, 1))


def _has(command: click.Command, flag: str) -> bool:
    return any(flag in each.opts for each in command.params)
