"""The whole program: the flags, all subcommands, and one message and exit code for each fault.

The process that the user starts.
"""

from __future__ import annotations

import io
import signal
import sys

import click

from rpccluster.cli import control, groups, leader, pools, queues, settings
from rpccluster.cli.calling import call, stub
from rpccluster.cli.root import cli
from rpccluster.cli.top import command as top
from rpccluster.errors import ConfigError, StartError

__all__ = ["main"]

_OTHERS = (control, groups, leader, pools, queues, settings, stub, top)
for command in (call.call, *(each for module in _OTHERS for each in module.COMMANDS)):
    cli.add_command(command)


def main() -> None:
    """Run the console script."""
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
    """Undo inherited settings that would break this process: an ignored SIGCHLD, and a strict stdout."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if a parent ignored it, no child could be waited for
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character that the locale lacks must not end the program
