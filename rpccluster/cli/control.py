"""The subcommands that command a running master through its control socket. The process that the user starts."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import replace
from typing import Any, NoReturn

import click

from rpccluster.cli.root import named_file
from rpccluster.cli.tables import status_text
from rpccluster.client import Client
from rpccluster.config import Sources, find
from rpccluster.control_path import living
from rpccluster.errors import (
    EXIT_FAULT,
    CallTimeout,
    ConnectFailed,
    ConnectionLost,
    RemoteError,
    RPCClusterError,
    StartError,
)

__all__ = ["COMMANDS", "EXIT_USAGE", "WHICH_CLUSTER", "ask", "control_path", "fail", "glance"]

EXIT_USAGE = 2
EXIT_NO_MASTER = 3
_ANSWER_SECONDS = 5.0  # a master that has not answered a ping by then hangs, or was stopped
_GLANCE_SECONDS = 1.0  # for a line in a list
_WATCH_SECONDS = 1.0
_PATIENCE_SECONDS = 86_400.0  # a command returns when the work is done; the master bounds how long that takes


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
@click.option("--watch", "is_watched", is_flag=True, help="show it anew each second; with --json an object a line")
@click.pass_obj
def status(sources: Sources, as_json: bool, is_watched: bool) -> None:
    """Show the master and its workers."""
    told = ask(sources, "status")
    with contextlib.suppress(KeyboardInterrupt):  # which is how one stops to watch
        while is_watched:
            click.clear()  # nothing, where the output is no terminal
            click.echo(json.dumps(told) if as_json else f"{status_text(told)}\n")
            time.sleep(_WATCH_SECONDS)
            told = ask(sources, "status")
    if not is_watched:
        click.echo(json.dumps(told, indent=2) if as_json else status_text(told))


@click.command()
@click.option("--all", "is_all", is_flag=True, help="replace every worker, for new code of the service")
@click.option("--plan", "is_plan", is_flag=True, help="only say what would be done")
@click.pass_obj
def reload(sources: Sources, is_all: bool, is_plan: bool) -> None:
    """Read the configuration again and apply what has changed; wait until that is done."""
    told = ask(sources, "reload", {"all": is_all, "plan": is_plan})
    plan = told["plan"]
    for line in plan["lines"]:
        click.echo(line)
    if not is_all and not any(plan[each] for each in ("added", "removed", "changed", "live")):
        click.echo("the configuration is as it was; reload --all is for new code of the service", err=True)
    click.echo(f"generation {told['generation']}")


@click.command()
@click.pass_obj
def rebalance(sources: Sources) -> None:
    """Even the connections out among the workers; wait until they are even."""
    ask(sources, "rebalance")


@click.command()
@click.pass_obj
def upgrade(sources: Sources) -> None:
    """Start a new master from the code on disk; wait until it has taken over."""
    click.echo(f"master {ask(sources, 'upgrade')['pid']}")


@click.command()
@click.option("--now", is_flag=True, help="do not wait for running calls")
@click.pass_obj
def stop(sources: Sources, now: bool) -> None:
    """Stop the cluster; wait until its workers are gone."""
    ask(sources, "stop", now)


def _use_config(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    if named_file(context, parameter, path) and not context.resilient_parsing:  # a completion has no sources
        context.obj = replace(context.obj, path=path)


def _use_control(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    if (
        path is not None and not context.resilient_parsing
    ):  # nothing is no default: the command would reach another cluster
        context.obj = replace(context.obj, flags={**context.obj.flags, "control_socket": path})


#: The flags that say which cluster is meant. They stand before a command, too; those behind it count more.
WHICH_CLUSTER: list[click.Parameter] = [
    click.Option(
        ["-c", "--config"], metavar="FILE", expose_value=False, callback=_use_config, help="its configuration file"
    ),
    click.Option(["--control"], metavar="PATH", expose_value=False, callback=_use_control, help="its control socket"),
]

COMMANDS = (status, reload, rebalance, upgrade, stop)
for _command in COMMANDS:
    _command.params.extend(WHICH_CLUSTER)


def ask(sources: Sources, method: str, *params: Any) -> Any:
    """Call ``method`` of the master and return its answer. Without one, end the program with 1 or 3 (no master)."""
    try:
        with Client(f"unix://{control_path(sources)}", timeout=_PATIENCE_SECONDS) as client:
            client.call("rpc.ping", timeout=_ANSWER_SECONDS)
            return client.call(method, *params)
    except RemoteError as error:
        fail(error.message, EXIT_FAULT)
    except ConnectFailed as error:
        what_to_do = "start it, or name another by -c FILE or --control PATH"
        fail(f"no master answers: {error}; {what_to_do}", EXIT_NO_MASTER)
    except CallTimeout as error:
        fail(f"no master answers: {error}", EXIT_NO_MASTER)
    except ConnectionLost:
        fail("the master ended before it answered", EXIT_NO_MASTER)


def glance(sources: Sources) -> dict[str, Any]:
    """Return the ``status`` of the cluster that is meant, if it is one and answers at once; else nothing."""
    with contextlib.suppress(RPCClusterError):
        paths = _paths(sources)
        if len(paths) == 1:
            with Client(f"unix://{paths[0]}", timeout=_GLANCE_SECONDS) as client:
                told: dict[str, Any] = client.call("status")
                return told
    return {}


def _paths(sources: Sources) -> list[str]:
    """Return the paths of the control sockets that may be meant. Raises `StartError`."""
    named: str | None = find(sources, "control_socket")
    if named == "":
        raise StartError("this command needs a control socket, but `control_socket` is set to nothing")
    return [named] if named else living(sources.identity if sources.path else None)


def control_path(sources: Sources) -> str:
    """Return the path of the control socket that is meant. Without exactly one, end the program with 2 or 3."""
    paths = _paths(sources)
    if not paths:
        whose = f"of {sources.path}" if sources.path else "of this user at a default control socket"
        fail(f"no master answers: found none {whose}; name it by -c FILE or --control PATH", EXIT_NO_MASTER)
    if len(paths) > 1:
        several = [f"found {len(paths)} clusters, expected one; name it by -c FILE or --control PATH"]
        fail("\n".join([*several, *(f"{path}: {_seen(path)}" for path in paths)]), EXIT_USAGE)
    return paths[0]


def _seen(path: str) -> str:
    """Describe the master at ``path`` in a list of several."""
    try:
        with Client(f"unix://{path}", timeout=_GLANCE_SECONDS) as client:
            master = client.call("status")["master"]
            return f"master {master['pid']}, listening at {', '.join(master['listeners'])}"
    except RPCClusterError:
        return "does not answer"


def fail(text: str, exit_code: int) -> NoReturn:
    """Print ``text`` as an error, and end the program."""
    click.echo("\n".join(f"rpccluster: {line}" for line in text.splitlines()), err=True)
    sys.exit(exit_code)
