"""The flags of the command line and of RPCCLUSTER_CMD_ARGS. The process that the user starts.

Owns the parsing. The modules beside it carry out what is asked, and are imported only when needed.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import click

from rpccluster.cli.usage import told_shortly
from rpccluster.config import OPTIONS, Configuration, Machine, Sources, load
from rpccluster.errors import ConfigError
from rpccluster.version import __version__

__all__ = ["WORDS_OF_OTHERS", "NearestCommands", "cli", "given_sources", "named_file"]

ENVIRONMENT = "RPCCLUSTER_CMD_ARGS"

#: What gunicorn, supervisord and systemd call it.
WORDS_OF_OTHERS = {
    "help": "--help",
    "run": "MODULE:CLASS",
    "serve": "MODULE:CLASS",
    "start": "-c FILE",
    "restart": "reload --all",
    "update": "reload",
    "reread": "reload --plan",
    "shutdown": "stop",
    "tail": "plugin tail",
}
_FIRST_COMMANDS = ("call", "status", "reload", "scale", "stop")  # what a newcomer needs


_LONGEST_HELP = 1000  # characters about a command in a list: click would cut off what it waits for


def _with_option_flags(command: Any) -> Any:
    """Give ``command`` the flags of each option; values stay text until the configuration reads them."""
    for key, option in reversed(list(OPTIONS.items())):
        if option.flags:
            kind: dict[str, Any] = {"metavar": "VALUE", "multiple": isinstance(option.default, tuple)}
            if isinstance(option.default, bool):
                kind = {"is_flag": True, "default": None}
            command = click.option(*option.flags, key, help=option.meaning, **kind)(command)
    return command


def named_file(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    """Refuse an empty name, as a shell makes it of an unset variable: another cluster would be meant without it."""
    if path == "":
        raise click.BadParameter("found nothing, expected a file", context, parameter)
    return path


class NearestCommands(click.Group):
    """Says which command may be meant if one is unknown."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(context, name) is None:
            context.fail(f"No such command {name!r}. {self.meant(context, name)}")
        return super().resolve_command(context, args)

    def meant(self, context: click.Context, name: str) -> str:
        """Say what may be meant by ``name``, which is no command."""
        names = self.list_commands(context)
        near = get_close_matches(name, names, 1)
        return f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(names)}."

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        self.write_commands(formatter, "Commands", self.list_commands(context))

    def write_commands(self, formatter: click.HelpFormatter, title: str, names: Iterable[str]) -> None:
        """Write a line or more about each command: what it does, in full."""
        with formatter.section(title):
            formatter.write_dl([(name, self.commands[name].get_short_help_str(_LONGEST_HELP)) for name in names])


class _Program(NearestCommands):
    """Serves MODULE:CLASS in the place of a command, and shows the commands that matter first."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with told_shortly():
            return super().make_context(*args, **extra)

    def invoke(self, context: click.Context) -> Any:
        with told_shortly():
            return super().invoke(context)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return _serving(name) if ":" in name else super().get_command(context, name)

    def meant(self, context: click.Context, name: str) -> str:
        module, dot, last = name.rpartition(".")
        if name in WORDS_OF_OTHERS:
            return f"Did you mean 'rpccluster {WORDS_OF_OTHERS[name]}'?"
        if dot and last.istitle():
            return f"Did you mean {module}:{last}?"
        if dot and last == "py":
            return f"A service is named MODULE:CLASS: {module.replace('/', '.')}:CLASS."
        near = get_close_matches(name, self.list_commands(context), 1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        return f"{hint}A service is named MODULE:CLASS, a file by -c FILE."

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        others = [name for name in self.list_commands(context) if name not in _FIRST_COMMANDS]
        self.write_commands(formatter, "Commands", _FIRST_COMMANDS)
        self.write_commands(formatter, "More commands", others)
        click.Command.format_options(self, context, formatter)


def _serving(service: str) -> click.Command:
    """Make the command that serves ``service``, MODULE:CLASS; flags may stand before and behind it."""

    @click.pass_context
    def serve_it(context: click.Context, config: str | None, **given: Any) -> None:
        sources: Sources = context.obj
        flags = {**sources.flags, **_texts(given), "service": service}
        _run(replace(sources, path=config or sources.path, flags=flags), context.find_root().params, given)

    return click.Command(service, params=_flags(), callback=serve_it, help=f"Serve {service}.")


@click.group(
    cls=_Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="[MODULE:CLASS | COMMAND [ARGS]...]",
)
@click.option("-c", "--config", metavar="FILE", callback=named_file, help="configuration file")
@_with_option_flags
@click.option("--check-config", is_flag=True, help="check the configuration and the service, and end")
@click.option("--print-config", is_flag=True, help="show every option, its value and where it came from, and end")
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s", prog_name="rpccluster")
@click.pass_context
def cli(context: click.Context, config: str | None, check_config: bool, print_config: bool, **flags: Any) -> None:
    """Run a cluster of MessagePack-RPC workers, or command a running one.

    MODULE:CLASS serves that class at once; without it, the configuration file names the service.
    """
    environment = _environment()
    context.obj = Sources(config or environment["config"], _texts(environment), _texts(flags))
    if context.invoked_subcommand is None:
        _run(context.obj, context.params)


def given_sources(context: click.Context) -> Sources:
    """Return what the parsed flags of the program name, in a completion, where it does not run."""
    given = context.find_root().params
    environment = _environment()
    return Sources(given.get("config") or environment["config"], _texts(environment), _texts(given))


def _run(sources: Sources, *given: Mapping[str, Any]) -> None:
    """Serve what ``sources`` say, or only look at it if one of the parsed command lines ``given`` says so."""
    given = (*given, _environment())
    if any(each["print_config"] for each in given):
        _print(load(sources))
    elif any(each["check_config"] for each in given):
        from rpccluster.cli.check import check_code

        sys.exit(check_code(load(sources, Machine())))
    else:
        from rpccluster.assembly.assemble import serve

        sys.exit(serve(sources, sys.argv[1:]))


def _flags() -> list[click.Parameter]:
    return [each for each in cli.params if each.expose_value]  # leaves out --help and --version


def _environment() -> dict[str, Any]:
    """Parse the flags in RPCCLUSTER_CMD_ARGS. Raises `ConfigError` for anything that is no flag."""
    parser = click.Command(ENVIRONMENT, params=_flags(), add_help_option=False)
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
