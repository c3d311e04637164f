"""The subcommands that concern one group of processes: its number, and plugins. The process that the user starts."""

from __future__ import annotations

import json
import time
from difflib import get_close_matches
from typing import Any

import click
from click.shell_completion import CompletionItem

from rpccluster.cli.control import WHICH_CLUSTER, ask, fail, glance
from rpccluster.cli.root import NearestCommands, given_sources
from rpccluster.cli.tables import groups_text
from rpccluster.config import Sources
from rpccluster.errors import EXIT_FAULT

__all__ = ["COMMANDS", "GroupName", "known_name"]

_PLUGIN = "plugin"  # the kind, and the begin of its groups' names
_ALL_LINES = 1_000_000  # the master keeps fewer
_FOLLOW_SECONDS = 0.25  # between two looks at an output


class GroupName(click.ParamType):
    """The name of a group, with completion; of a plugin or a pool its own, such as ``NAME`` for ``plugin:NAME``."""

    name = "group"

    def __init__(self, kind: str = "") -> None:
        self._kind = kind

    def shell_complete(
        self, context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = _names(glance(given_sources(context)), self._kind)
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", metavar="[GROUP] N|+N|-N", nargs=-1, required=True, type=GroupName())
@click.pass_obj
def scale(sources: Sources, words: tuple[str, ...]) -> None:
    """Set the number of workers, or of GROUP's processes, to N, or add or remove N; wait until that is done."""
    if len(words) == 1:
        click.echo(f"{ask(sources, 'scale', *words)['number_workers']} workers")
    elif len(words) == 2:
        name = known_name(sources, words[0], "")
        told = ask(sources, "scale", name, words[1])
        click.echo(f"{told['number_workers'] if 'number_workers' in told else told['wanted']} {name}")
    else:
        raise click.UsageError(f"found {len(words)} words, expected [GROUP] and a number")


@click.group(cls=NearestCommands)
def plugin() -> None:
    """List, start, stop and restart plugins, and show what they write."""


@plugin.command("list")
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
@click.pass_obj
def list_(sources: Sources, as_json: bool) -> None:
    """Show every plugin: its state, its processes, and why it is not ready."""
    plugins = [group for group in ask(sources, "status")["groups"] if group["kind"] == _PLUGIN]
    if as_json:
        click.echo(json.dumps(plugins, indent=2))
    else:
        click.echo(groups_text(plugins))


_named = click.argument("name", metavar="NAME", type=GroupName(_PLUGIN))


@plugin.command()
@_named
@click.pass_obj
def start(sources: Sources, name: str) -> None:
    """Start the plugin NAME; wait until it is ready."""
    ask(sources, "plugin.start", known_name(sources, name))


@plugin.command("stop")
@_named
@click.pass_obj
def stop_(sources: Sources, name: str) -> None:
    """Stop the plugin NAME until it is started by hand; wait until it is gone."""
    ask(sources, "plugin.stop", known_name(sources, name))


@plugin.command()
@_named
@click.pass_obj
def restart(sources: Sources, name: str) -> None:
    """Replace the processes of the plugin NAME; wait until that is done."""
    ask(sources, "plugin.restart", known_name(sources, name))


@plugin.command()
@click.option("-n", "number", type=click.IntRange(0), default=10, help="how many lines; 10 if it is not given")
@click.option("-f", "--follow", is_flag=True, help="go on with what it writes from now on")
@_named
@click.pass_obj
def tail(sources: Sources, name: str, number: int, follow: bool) -> None:
    """Show the last lines that the plugin NAME has written."""
    name = known_name(sources, name)
    told = ask(sources, "plugin.tail", name, number)
    _show(told["lines"])
    while follow:
        time.sleep(_FOLLOW_SECONDS)
        since, told = told["next"], ask(sources, "plugin.tail", name, _ALL_LINES, told["next"])
        if told["next"] < since:  # another master, which counts anew
            told = ask(sources, "plugin.tail", name, _ALL_LINES, 0)
        _show(told["lines"])


COMMANDS = (scale, plugin)
for _command in (*COMMANDS, *plugin.commands.values()):
    _command.params.extend(WHICH_CLUSTER)


def _names(told: dict[str, Any], kind: str) -> list[str]:
    """Return the names of all groups of ``kind``; of plugins their own. No kind: of all groups."""
    names = [group["name"] for group in told.get("groups", ()) if kind in ("", group["kind"])]
    return [name.partition(":")[2] for name in names] if kind else names


def known_name(sources: Sources, name: str, kind: str = _PLUGIN, noun: str = "") -> str:
    """Return ``name`` as the master knows it. Without such a group, end the program with 1 and the nearest name.

    ``noun`` is the word for a group of this kind, if it has another one.
    """
    names = _names(ask(sources, "status"), kind)
    for each in (name, name.partition(":")[2] if kind else f"{_PLUGIN}:{name}"):
        if each in names:
            return each
    near = get_close_matches(name, names, 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(names)}." if names else "There is none."
    return fail(f"found no {noun or kind or 'group'} {name!r}. {hint}", EXIT_FAULT)


def _show(lines: list[str]) -> None:
    for line in lines:
        click.echo(line)
