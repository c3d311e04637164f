"""The subcommands about the lead: who has it, and to give it up. The process that the user starts."""

from __future__ import annotations

import json
from typing import Any

import click

from rpccluster.cli.control import WHICH_CLUSTER, ask
from rpccluster.cli.root import NearestCommands
from rpccluster.config import Sources

__all__ = ["COMMANDS"]


@click.group(cls=NearestCommands)
def leader() -> None:
    """Show which cluster leads, and give up the lead."""


@leader.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
@click.pass_obj
def show(sources: Sources, as_json: bool) -> None:
    """Show whether this cluster leads, and which one does otherwise."""
    told = ask(sources, "leader.show")
    click.echo(json.dumps(told, indent=2) if as_json else _text(told))


@leader.command()
@click.pass_obj
def resign(sources: Sources) -> None:
    """Give up the lead, if this cluster has it; wait until another one leads, or for two seconds."""
    click.echo(_text({"is_leader": False, **ask(sources, "leader.resign")}))


def _text(told: dict[str, Any]) -> str:
    if told["is_leader"]:
        return f"this cluster leads (token {told['token']})"
    if told["token"]:
        return f"the lead is at {told['leader'] or 'an unnamed cluster'} (token {told['token']})"
    return "nobody leads"


COMMANDS = (leader,)
for _command in (leader, *leader.commands.values()):
    _command.params.extend(WHICH_CLUSTER)
