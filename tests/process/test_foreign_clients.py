"""What clients of other libraries rely on, while connections move and calls end in every way; and those clients."""

from __future__ import annotations

import itertools
import random
import shutil
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import msgpack
import pytest
from foreign import check, tcp

from rpccluster.testing import RunningCluster

CALLS = 2000
SECONDS = 30


# -- the letter of the replies


def widths(number: int) -> list[bytes]:
    """The encodings of an integer that has room in all of them."""
    heads = [(b"\xcc", 1), (b"\xcd", 2), (b"\xce", 4), (b"\xcf", 8), (b"\xd1", 2), (b"\xd2", 4), (b"\xd3", 8)]
    return [msgpack.packb(number)] + [
        head + number.to_bytes(width, "big") for head, width in heads if number < 1 << 8 * width - (head > b"\xcf")
    ]


KINDS: list[tuple[Any, Any]] = [
    ("sum", [1, 2]),
    ("echo", [{"a": [1, None, "ü"]}]),
    (b"sum", [1, 2]),
    (b"nosuch", []),
    ("fail", ["x"]),
    ("fail", [""]),
    ("sum", [1, None]),
    ("sleep", [0.01]),
    ("sleep", [1]),  # call_timeout ends it
    ("echo", []),
    ("echo", [b"x" * 3000]),
    ("echo", None),
    ("echo", {"value": 1}),
    ("pid", []),
]


def requests() -> Iterator[bytes]:
    """Calls of every kind without end, with msgids in all encodings, and notifications among them."""
    choice = random.Random(4711)
    for msgid in itertools.count():
        method, params = KINDS[msgid % len(KINDS)]
        body = msgpack.packb(method) + msgpack.packb(params)
        yield b"\x94\x00" + choice.choice(widths(msgid)) + body
        if msgid % 7 == 0 and type(params) is list:
            yield b"\x93\x02" + body


def converse(address: tuple[str, int], go_on: Callable[[], bool]) -> tuple[int, bytes]:
    """How many calls were sent, and all that the server sends in answer, to the end of the stream."""
    came = bytearray()
    unsent, sent = requests(), 0
    with socket.create_connection(address, SECONDS) as sock:
        while sent < CALLS or go_on():
            some = list(itertools.islice(unsent, 40))
            sock.sendall(b"".join(some))
            sent += sum(message[0] == 0x94 for message in some)
            came += sock.recv(65536)
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(65536):
            came += data
    return sent, bytes(came)


def test_replies_are_to_the_letter(restless: RunningCluster) -> None:
    """One for each request and none beside; msgids in their shortest form; an error is text, and never empty.

    lua-mpack refuses a msgid in a longer form, others take an empty error for none; Neovim and two npm clients hear
    nothing more after a reply that they have not asked for, or a request.
    """
    with restless.launch("reload", "--all") as reload:
        count, stream = converse(tcp(restless), lambda: reload.poll() is None)
    assert reload.returncode == 0
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, unicode_errors="surrogateescape")
    unpacker.feed(stream)
    times: Counter[int] = Counter()
    pids: set[int] = set()
    begins_at = 0
    for reply in unpacker:
        assert type(reply) is list
        kind, msgid, error, result = reply
        assert kind == 1
        times[msgid] += 1
        assert error is None or (type(error) is str and error)
        assert error is None or result is None
        head = b"\x94\x01" + msgpack.packb(msgid)
        assert stream[begins_at : begins_at + len(head)] == head
        begins_at = unpacker.tell()
        if KINDS[msgid % len(KINDS)][0] == "pid":
            pids.add(result)
    assert begins_at == len(stream)
    assert times == Counter(range(count))
    assert len(pids) > 1, "the connection has not moved"


# -- the clients themselves

SCRIPTS = {
    "pynvim": """
from pynvim.msgpack_rpc import tcp_session
session = tcp_session(sys.argv[1], int(sys.argv[2]))
def error(method):
    try:
        session.request(method)
    except Exception as raised:
        return str(raised)
found = {"sum": session.request("sum", 1, 2), "error": error("nosuch"), "echo": session.request("echo", WANTED["echo"])}
session.request("sum", 1, async_=True)
found["many"] = [session.request("sum", number) for number in range(500)]
found["after"] = session.request("rpc.ping")
session.close()
""",
    "aio_msgpack_rpc": """
import asyncio
import aio_msgpack_rpc
async def main():
    client = aio_msgpack_rpc.Client(*await asyncio.open_connection(sys.argv[1], int(sys.argv[2])), response_timeout=30)
    async def error(method):
        try:
            await client.call(method)
        except aio_msgpack_rpc.error.RPCResponseError as raised:
            return str(raised)
    found = {"sum": await client.call("sum", 1, 2), "error": await error("nosuch")}
    found["echo"] = await client.call("echo", WANTED["echo"])
    await client.notify("sum", 1)
    found["many"] = list(await asyncio.gather(*(client.call("sum", number) for number in range(500))))
    found["after"] = await client.call("rpc.ping")
    client.close()
    return found
found = asyncio.run(main())
""",
    "py_msgpack_rpc": """
import asyncio
import py_msgpack_rpc
async def main():
    builder = py_msgpack_rpc.AsyncClientBuilder()
    builder.connect_tcp(sys.argv[1], int(sys.argv[2]))
    async with await builder.build() as client:
        async def error(method):
            try:
                await client.call(method)
            except Exception as raised:
                return str(raised)
        found = {"sum": await client.call("sum", 1, 2), "error": await error("nosuch")}
        found["echo"] = await client.call("echo", WANTED["echo"])
        found["many"] = list(await asyncio.gather(*(client.call("sum", number) for number in range(500))))
        found["after"] = await client.call("rpc.ping")
        return found
found = asyncio.run(main())
""",
}

#: Of an error pynvim shows what would be Neovim's text: the second part of a pair, which is the second character here.
ERRORS = {"pynvim": "n"}


TWISTED = """
import json, sys
from twisted.internet import defer, reactor
from txmsgpackrpc.client import connect
wanted = json.loads(sys.argv[3])
@defer.inlineCallbacks
def main():
    client = yield connect(sys.argv[1], int(sys.argv[2]))
    found = {"sum": (yield client.createRequest("sum", 1, 2))}
    try:
        yield client.createRequest("nosuch")
    except Exception as raised:
        found["error"] = str(raised)
    found["echo"] = yield client.createRequest("echo", wanted["echo"])
    yield client.createNotification("sum", [1])
    many = [client.createRequest("sum", number) for number in range(500)]
    found["many"] = yield defer.gatherResults(many)
    found["after"] = yield client.createRequest("rpc.ping")
    print(json.dumps(found))
main().addErrback(lambda failure: failure.printTraceback()).addBoth(lambda done: reactor.stop())
reactor.run()
"""


def test_a_client_on_twisted(restless: RunningCluster, old_twisted: str) -> None:
    """Likewise."""
    check([old_twisted, "-c", TWISTED], restless)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_client_in_python(restless: RunningCluster, name: str) -> None:
    """Results, an error, a notification, 500 calls, and its connection moves meanwhile."""
    if sys.version_info >= (3, 12) and name == "py_msgpack_rpc":
        pytest.skip("py-msgpack-rpc is for Python 3.10 and 3.11")
    pytest.importorskip(name, reason=f"found no {name}, which the extra named test brings")
    script = f"import json, sys\nWANTED = json.loads(sys.argv[3])\n{SCRIPTS[name]}\nprint(json.dumps(found))"
    check([sys.executable, "-c", script], restless, ERRORS.get(name, "'nosuch' method not found"))


NODE_SCRIPTS = {
    "msgpack5rpc": """
const net = require('net'), Session = require('msgpack5rpc');
const socket = net.connect(port, host), session = new Session([]);
session.attach(socket, socket);
session.on('request', () => { throw 'a request'; });
session.on('notification', () => { throw 'a notification'; });
const call = (method, ...args) => new Promise((resolve, reject) =>
  session.request(method, args, (error, result) => error ? reject(error) : resolve(result)));
const notify = (method, ...args) => session.notify(method, args);
""",
    "msgpack-rpc-lite": """
const client = require('msgpack-rpc-lite').createClient(port, host);
const socket = client.socket;
const call = (method, ...args) => client.request(method, ...args).then(found => found[0]);
const notify = (method, ...args) => client.notify(method, ...args);
""",
    "@ros2jsguy/msgpack-rpc-node": """
const {Client, TcpClient} = require('@ros2jsguy/msgpack-rpc-node');
const client = new Client(TcpClient, port, host);
const connected = client.connect();
const call = (method, ...args) => connected.then(() => client.call(method, ...args));
const notify = (method, ...args) => connected.then(() => client.notify(method, ...args));
""",
    "neovim": """
const net = require('net'), {Transport} = require('neovim/lib/utils/transport');
const socket = net.connect(port, host), transport = new Transport();
transport.attach(socket, socket, null);
transport.on('request', () => { throw 'a request'; });
transport.on('notification', () => { throw 'a notification'; });
const call = (method, ...args) => new Promise((resolve, reject) =>
  transport.request(method, args, (error, result) => error ? reject(error) : resolve(result)));
const notify = (method, ...args) => transport.notify(method, args);
""",
}

#: It fails at two replies in one segment, and at one reply in two.
ONE_AT_A_TIME = """
const {Client, TcpClient} = require('msgpack-rpc-node');
const host = process.argv[1], port = Number(process.argv[2]), wanted = JSON.parse(process.argv[3]);
(async () => {
  const client = new Client(TcpClient, port, host);
  await client.connect();
  const found = {sum: await client.call('sum', 1, 2)};
  found.error = await client.call('nosuch').then(() => null, error => error.message || String(error));
  found.echo = await client.call('echo', wanted.echo);
  client.notify('sum', 1);
  found.many = [];
  for (const number of wanted.many) found.many.push(await client.call('sum', number));
  found.after = await client.call('rpc.ping');
  process.stdout.write(JSON.stringify(found), () => process.exit(0));
})();
"""

NODE_MAIN = """
const host = process.argv[1], port = Number(process.argv[2]), wanted = JSON.parse(process.argv[3]);
%s
(async () => {
  const found = {sum: await call('sum', 1, 2)};
  found.error = await call('nosuch').then(() => null, error => error.message || String(error));
  found.echo = await call('echo', wanted.echo);
  notify('sum', 1);
  found.many = await Promise.all(Array.from({length: 500}, (_, number) => call('sum', number)));
  found.after = await call('rpc.ping');
  process.stdout.write(JSON.stringify(found), () => process.exit(0));
})();
"""


@pytest.mark.parametrize("name", NODE_SCRIPTS)
def test_a_client_in_javascript(restless: RunningCluster, npm_clients: Path, name: str) -> None:
    """Likewise."""
    node = shutil.which("node")
    assert node is not None
    check([node, "-e", NODE_MAIN % NODE_SCRIPTS[name]], restless, "'nosuch' method not found", npm_clients)


def test_a_client_in_javascript_for_one_call_at_a_time(restless: RunningCluster, npm_clients: Path) -> None:
    """With small results it works."""
    node = shutil.which("node")
    assert node is not None
    wanted = {"sum": 3, "echo": {"a": [1, None]}, "many": list(range(500)), "after": "pong"}
    check([node, "-e", ONE_AT_A_TIME], restless, folder=npm_clients, wanted=wanted)
