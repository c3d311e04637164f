"""The flags of the command line and of RPCCLUSTER_CMD_ARGS. The process that the user starts.

Owns the parsing. The modules beside it carry out what is asked, and are imported only when needed.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

import click

from rpccluster.config import OPTIONS, Configuration, Machine, Sources, load
from rpccluster.errors import ConfigError
from rpccluster.version import __version__

__all__ = ["cli"]

ENVIRONMENT = "RPCCLUSTER_CMD_ARGS"


def _with_option_flags(command: Any) -> Any:
    """Give ``command`` the flags of each option; values stay text until the configuration reads them."""
    for key, option in reversed(list(OPTIONS.items())):
        if option.flags:
            kind: dict[str, Any] = {"metavar": "VALUE", "multiple": isinstance(option.default, tuple)}
            if isinstance(option.default, bool):
                kind = {"is_flag": True, "default": None}
            command = click.option(*option.flags, key, help=option.meaning, **kind)(command)
    return command


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-c", "--config", metavar="FILE", help="configuration file")
@_with_option_flags
@click.option("--check-config", is_flag=True, help="check the configuration and the service, and end")
@click.option("--print-config", is_flag=True, help="show every option, its value and where it came from, and end")
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s", prog_name="rpccluster")
@click.pass_context
def cli(context: click.Context, config: str | None, check_config: bool, print_config: bool, **flags: Any) -> None:
    """Run a cluster of MessagePack-RPC workers, or command a running one."""
    environment = _environment()
    context.obj = Sources(config or environment["config"], _texts(environment), _texts(flags))
    if context.invoked_subcommand is not None:
        return
    if print_config or environment["print_config"]:
        _print(load(context.obj))
    elif check_config or environment["check_config"]:
        from rpccluster.cli.check import check_service

        sys.exit(check_service(load(context.obj, Machine()).options))
    else:
        from rpccluster.assembly.assemble import serve

        sys.exit(serve(context.obj, sys.argv[1:]))


def _environment() -> dict[str, Any]:
    """Parse the flags in RPCCLUSTER_CMD_ARGS. Raises `ConfigError` for anything that is no flag."""
    flags = [each for each in cli.params if each.expose_value]  # leaves out --help and --version
    parser = click.Command(ENVIRONMENT, params=flags, add_help_option=False)
    try:
        return parser.make_context(ENVIRONMENT, shlex.split(os.environ.get(ENVIRONMENT, ""))).params
    except click.UsageError as error:
        raise ConfigError([f"{ENVIRONMENT}: {error.format_message()}"]) from error
    except ValueError as error:
        raise ConfigError([f"cannot parse {ENVIRONMENT}: {error}"]) from error


def _texts(params: dict[str, Any]) -> dict[str, str]:
    return {key: _text(value) for key, value in params.items() if key in OPTIONS and value not in (None, ())}


def _text(value: Any) -> str:
    """Write a flag's value as the file would: a switch that is on, a repeated flag, or plain text."""
    return "true" if value is True else ",".join(value) if isinstance(value, tuple) else value


def _print(configuration: Configuration) -> None:
    rows = list(configuration.describe())
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, text, origin in rows:
        click.echo(f"{key:{widths[0]}} = {text:{min(widths[1], 48)}}  # {origin}")
