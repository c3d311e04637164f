"""The whole program: the flags with all subcommands, and one message and exit code for each fault."""

from __future__ import annotations

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
    try:
        cli(prog_name="rpccluster")
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except StartError as error:
        click.echo("\n".join(f"rpccluster: {line}" for line in str(error).splitlines()), err=True)
        sys.exit(error.exit_code)
