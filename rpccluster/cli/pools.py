"""The subcommands about pools: which there are, their tasks, the end of one. The process that the user starts."""

from __future__ import annotations

import json
from typing import Any

import click

from rpccluster.cli.control import WHICH_CLUSTER, ask
from rpccluster.cli.groups import GroupName, known_name
from rpccluster.cli.root import NearestCommands
from rpccluster.cli.tables import table
from rpccluster.config import Sources

__all__ = ["COMMANDS"]

_TASK = "task"  # the kind of a pool's processes
_OF_POOLS = ("name", "processes", "running", "waiting", "queue_size")
_OF_TASKS = ("id", "state", "target", "attempt", "pid", "submitters")

_as_json = click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")


@click.group(cls=NearestCommands)
def pool() -> None:
    """List pools and their tasks, and cancel one."""


@pool.command("list")
@_as_json
@click.pass_obj
def list_(sources: Sources, as_json: bool) -> None:
    """Show every pool: its processes, and how many tasks run and wait."""
    _show(ask(sources, "pool.list"), _OF_POOLS, as_json)


@pool.command()
@_as_json
@click.argument("name", metavar="NAME", type=GroupName(_TASK))
@click.pass_obj
def tasks(sources: Sources, name: str, as_json: bool) -> None:
    """Show every task of the pool NAME that runs or waits, with the pids of those that submitted it."""
    _show(ask(sources, "pool.tasks", known_name(sources, name, _TASK, "pool")), _OF_TASKS, as_json)


@pool.command()
@click.argument("id_", metavar="ID", type=int)
@click.pass_obj
def cancel(sources: Sources, id_: int) -> None:
    """Cancel the task ID: it is not begun, or its process is killed. Its submitter hears that it was cancelled."""
    ask(sources, "pool.cancel", id_)


COMMANDS = (pool,)
for _command in (pool, *pool.commands.values()):
    _command.params.extend(WHICH_CLUSTER)


def _show(told: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        rows = [["-" if row[column] in (None, []) else row[column] for column in columns] for row in told]
        click.echo("\n".join(table([columns, *([_text(cell) for cell in row] for row in rows)], left=len(columns))))


def _text(cell: Any) -> str:
    return ",".join(map(str, cell)) if isinstance(cell, list) else str(cell)
