"""The subcommands about queues: what they hold, items in and out from the shell. The process that the user starts.

They ask the master where the keeper listens, and are a program like any other there.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem

from rpccluster.cli.calling.call import jsonable
from rpccluster.cli.control import EXIT_USAGE, WHICH_CLUSTER, ask, fail, glance
from rpccluster.cli.root import NearestCommands, given_sources
from rpccluster.cli.tables import queue_text, queues_text
from rpccluster.client import Client
from rpccluster.client.sync.queue import Item, Queue
from rpccluster.config import Sources
from rpccluster.errors import EXIT_FAULT, RPCClusterError

__all__ = ["COMMANDS"]

_GROUP = "queues"
_TOUCH_SECONDS = 1.0  # between two signs that a command still works on its item


class _QueueName(click.ParamType):
    """The name of a queue, with completion."""

    name = "queue"

    def shell_complete(
        self, context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        with contextlib.suppress(RPCClusterError, LookupError):
            with Client(_address(glance(given_sources(context))), timeout=1.0) as client:
                names = [each["name"] for each in client.call("queue.list")]
            return [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return []


_named = click.argument("name", metavar="NAME", type=_QueueName())
_as_json = click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
_most = click.option("-n", "most", type=click.IntRange(min=1), default=10, show_default=True, help="how many at most")


@click.group(cls=NearestCommands)
def queue() -> None:
    """Look into queues, put and get items, and work on them."""


@queue.command("list")
@_as_json
@click.pass_obj
def list_(sources: Sources, as_json: bool) -> None:
    """Show every queue: how many items it has in which state, and how many consumers wait."""
    with _client(sources) as client:
        told = client.call("queue.list")
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(queues_text(told))


@queue.command()
@_named
@click.option("--priority", type=click.IntRange(0, 9), default=0, help="9 goes first; default 0")
@click.option("--delay", type=click.FloatRange(min=0), default=None, help="seconds until they are ready")
@click.option("--group", default=None, help="one item of a group is out at a time")
@click.pass_obj
def put(sources: Sources, name: str, priority: int, delay: float | None, group: str | None) -> None:
    """Put each line of stdin, a JSON value, into the queue NAME; print the ids."""
    with _queue(sources, name) as opened:
        for number, line in enumerate(sys.stdin, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                fail(f"line {number} is no JSON: {error}", EXIT_FAULT)
            click.echo(opened.put(value, priority=priority, delay=delay, group=group))


@queue.command()
@_named
@click.option("-n", "number", type=click.IntRange(min=1), default=1, show_default=True, help="how many at most")
@click.option(
    "--wait", "seconds", type=click.FloatRange(min=0), default=0.0, help="seconds to wait for each; default 0"
)
@click.pass_obj
def get(sources: Sources, name: str, number: int, seconds: float) -> None:
    """Take items out of the queue NAME; each is acked when its line, a JSON value, is written."""
    taken = 0
    with _queue(sources, name) as opened:
        while taken < number:
            item = opened.get(timeout=seconds)
            if item is None:
                break
            _write(item.value)
            item.ack()
            taken += 1
        reason = "" if taken else "is paused" if opened.stats()["paused"] else "has nothing ready"
    if reason:
        fail(f"the queue {name} {reason}", EXIT_FAULT)


def _write(value: Any) -> None:
    """Write a line; a reader that has gone ends the program before the item is acked."""
    sys.stdout.write(f"{json.dumps(jsonable(value))}\n")
    sys.stdout.flush()


@queue.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_named
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
@click.option("-n", "number", type=click.IntRange(min=1), default=None, help="end after so many items")
@click.option("--wait", "seconds", type=click.FloatRange(min=0), default=None, help="end after seconds without an item")
@click.pass_obj
def work(sources: Sources, name: str, command: tuple[str, ...], number: int | None, seconds: float | None) -> None:
    """Run COMMAND for each item of the queue NAME, with its JSON on stdin: exit 0 acks it, any other gives it back.

    Options stand before NAME.
    """
    if command[0].startswith("-"):
        fail(f"found {command[0]} as COMMAND, expected a program; options stand before NAME", EXIT_USAGE)
    with _queue(sources, name) as opened:
        while number is None or number > 0:
            item = opened.get(timeout=seconds)
            if item is None:
                break
            _work_on(item, command)
            number = None if number is None else number - 1


def _work_on(item: Item, command: tuple[str, ...]) -> None:
    with _kept(item):
        try:
            data = json.dumps(jsonable(item.value)).encode()
            code = subprocess.run(command, input=data, check=False).returncode
        except OSError as error:
            item.nack(error=str(error))
            fail(f"cannot run {command[0]}: {error.strerror}", EXIT_FAULT)
        if code == 0:
            item.ack()
        else:
            item.nack(error=f"{command[0]} ended with {code}")


@contextlib.contextmanager
def _kept(item: Item) -> Iterator[None]:
    """Let the lease of ``item`` begin anew, again and again."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(_TOUCH_SECONDS):
            with contextlib.suppress(RPCClusterError):
                item.touch()

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@queue.command()
@_named
@_most
@click.pass_obj
def peek(sources: Sources, name: str, most: int) -> None:
    """Show the first ready items of the queue NAME, each as a line of JSON, and leave them there."""
    with _client(sources) as client:
        for id_, attempt, value in client.call("queue.peek", name, most):
            click.echo(json.dumps({"id": id_, "attempts": attempt, "value": jsonable(value)}))


@queue.command()
@_named
@_most
@click.pass_obj
def dead(sources: Sources, name: str, most: int) -> None:
    """Show the first dead items of the queue NAME, each as a line of JSON with its last error."""
    with _client(sources) as client:
        for id_, attempts, value, error in client.call("queue.dead", name, most):
            click.echo(json.dumps({"id": id_, "attempts": attempts, "value": jsonable(value), "error": error}))


@queue.command()
@_named
@_as_json
@click.pass_obj
def stats(sources: Sources, name: str, as_json: bool) -> None:
    """Count the items of the queue NAME by their states."""
    with _client(sources) as client:
        told = client.call("queue.stats", name)
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(queue_text(told))


@queue.command()
@_named
@click.argument("id_", metavar="[ID]", required=False, type=int)
@click.pass_obj
def retry(sources: Sources, name: str, id_: int | None) -> None:
    """Make the dead item ID of the queue NAME ready again, or all of them; print their number."""
    _count(sources, "queue.retry", name, *([] if id_ is None else [id_]), needs_one=id_ is not None)


@queue.command()
@_named
@click.pass_obj
def purge(sources: Sources, name: str) -> None:
    """Remove all items of the queue NAME that no consumer has; print their number."""
    _count(sources, "queue.purge", name)


def _count(sources: Sources, method: str, *params: Any, needs_one: bool = False) -> None:
    with _client(sources) as client:
        number = client.call(method, *params)
    if needs_one and not number:
        fail(f"the queue {params[0]} has no dead item {params[1]}", EXIT_FAULT)
    click.echo(number)


@queue.command()
@_named
@click.pass_obj
def pause(sources: Sources, name: str) -> None:
    """Give out nothing more of the queue NAME; puts go on."""
    with _client(sources) as client:
        client.call("queue.pause", name)


@queue.command()
@_named
@click.pass_obj
def resume(sources: Sources, name: str) -> None:
    """Give out items of the queue NAME again."""
    with _client(sources) as client:
        client.call("queue.resume", name)


COMMANDS = (queue,)
for _command in (queue, *queue.commands.values()):
    _command.params.extend(WHICH_CLUSTER)


@contextlib.contextmanager
def _client(sources: Sources) -> Iterator[Client]:
    """Yield a client of the keeper; an error ends the program with its text."""
    with _told(), Client(_found(sources), timeout=60.0) as client:
        yield client


@contextlib.contextmanager
def _queue(sources: Sources, name: str) -> Iterator[Queue]:
    with _told(), Queue(_found(sources), name) as opened:
        yield opened


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RPCClusterError as error:
        kind = type(error).__name__
        fail(str(error) if kind in str(error) or kind == "RemoteError" else f"{kind}: {error}", EXIT_FAULT)


def _found(sources: Sources) -> str:
    try:
        return _address(ask(sources, "status"))
    except LookupError:
        fail("this cluster keeps no queues: it has neither a section [queues] nor [queue:NAME]", EXIT_FAULT)


def _address(status: dict[str, Any]) -> str:
    """Return where the keeper listens. Raises LookupError if there is none."""
    for group in status.get("groups", ()):
        if group["name"] == _GROUP:
            address: str = group["listeners"][0]
            return address
    raise LookupError(_GROUP)
