"""The whole program: the flags with all subcommands, and one message and exit code for each fault."""

from __future__ import annotations

import io
import signal
import sys

import click

from rpccluster.cli import call, control
from rpccluster.cli.root import cli
from rpccluster.errors import ConfigError, StartError

__all__ = ["main"]

for command in (call.call, *control.COMMANDS):
    cli.add_command(command)


def main() -> None:
    """The console script."""
    _settle_in()
    try:
        cli(prog_name="rpccluster")
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except StartError as error:
        click.echo("\n".join(f"rpccluster: {line}" for line in str(error).splitlines()), err=True)
        sys.exit(error.exit_code)


def _settle_in() -> None:
    """Undo what this process was started with and could not live with."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent may ignore it: then no child can be waited for
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale that lacks a character must not end us
