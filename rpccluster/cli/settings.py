"""The subcommands of the values in force: to read, change and bring them back. The process that the user starts."""

from __future__ import annotations

import json
from typing import Any

import click

from rpccluster.cli.control import WHICH_CLUSTER, ask
from rpccluster.cli.root import NearestCommands
from rpccluster.config import Sources

__all__ = ["COMMANDS"]


@click.group(cls=NearestCommands)
def config() -> None:
    """Show the values in force, and change them in all processes."""


@config.command("get")
@click.argument("key", required=False)
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
@click.pass_obj
def get_(sources: Sources, key: str | None, as_json: bool) -> None:
    """Print the value of KEY, such as settings.price, or all values with their origins."""
    told = ask(sources, "config.get", *([key] if key else []))
    values = told["values"]
    if as_json:
        click.echo(json.dumps(told, indent=2))
    elif key:
        click.echo(*(each["value"] for each in values.values()))
    else:
        for name, each in values.items():
            click.echo(f"{name} = {each['value']}  # {each['origin']}")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
@click.pass_obj
def diff(sources: Sources, as_json: bool) -> None:
    """Print what the file says now that differs from what is in force."""
    told = ask(sources, "config.diff")
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        for name, (old, new) in told.items():
            click.echo(f"{name}: {_shown(old)} -> {_shown(new)}")


@config.command("set")
@click.option("--write", is_flag=True, help="change the configuration's file, too")
@click.argument("changes", metavar="KEY=VALUE...", nargs=-1, required=True)
@click.pass_obj
def set_(sources: Sources, changes: tuple[str, ...], write: bool) -> None:
    """Change values in every process, or in none; wait until that is done."""
    pairs = [change.partition("=") for change in changes]
    for key, equals, _ in pairs:
        if not equals or not key:
            raise click.UsageError(f"found {key!r}, expected KEY=VALUE, such as settings.price=2")
    told = ask(sources, "config.set", {key: text for key, _, text in pairs}, {"write": write})
    click.echo(f"version {told['version']}")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
@click.pass_obj
def history(sources: Sources, as_json: bool) -> None:
    """Print the last versions: number, time, who has changed what."""
    told = ask(sources, "config.history")
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for each in told["versions"]:
        uid = "" if each["uid"] is None else f", uid {each['uid']}"
        click.echo(f"version {each['version']}, {each['time']}{uid}: {each['command']}")
        for name, (old, new) in each["changes"].items():
            click.echo(f"    {name}: {_shown(old)} -> {_shown(new)}")


@config.command()
@click.argument("version", type=int, required=False)
@click.pass_obj
def rollback(sources: Sources, version: int | None) -> None:
    """Bring the values of VERSION back, or of the one before; under a new number."""
    told = ask(sources, "config.rollback", *([] if version is None else [version]))
    click.echo(f"version {told['version']}")


def _shown(text: Any) -> str:
    return text if text else "nothing"


COMMANDS = (config,)
for _command in (get_, diff, set_, history, rollback):
    _command.params.extend(WHICH_CLUSTER)
