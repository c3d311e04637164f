"""The peers as data: what each is, how it is started, how it is called. Starts nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = [
    "BEFORE",
    "BESIDE",
    "KINDS",
    "PEERS",
    "POOLS",
    "QUEUES",
    "RPCCLUSTER",
    "Peer",
    "build_in",
    "choose",
    "client",
    "with_workers",
]

BEFORE = "before"  # another build of this project


@dataclass(frozen=True)
class Peer:
    """One server to measure.

    ``command`` may name ``{python}``, ``{old_python}``, ``{floor}`` and ``{config}``. ``load`` is who calls it:
    ``rpc`` or ``http`` for the generator in C, else a module of `bench.loads`, run by ``load_python``. ``encoding``
    is ``msgpack``, ``old-msgpack`` (before str and bin were told apart) or ``json``. ``folder`` is the checkout that
    its server or its load runs in; empty for this one.
    """

    name: str
    what: str
    command: tuple[str, ...]
    load: str = "rpc"
    load_python: str = "{python}"
    encoding: str = "msgpack"
    has_master: bool = False
    can_pipeline: bool = True
    workers: int = 1
    config: str = ""
    packages: tuple[str, ...] = ()
    folder: str = ""

    @property
    def has_fast_load(self) -> bool:
        """Whether the generator in C calls it; else its own client does, and that is the limit of its calls/s."""
        return self.load in ("rpc", "http")


_CONFIG = """\
[cluster]
service = {service}
pythonpath = {checkout}
bind = tcp://127.0.0.1:0
number_workers = {workers}
"""

RPCCLUSTER = Peer(
    "rpccluster",
    "this project: the full daemon, default configuration, one worker",
    ("bin/rpccluster", "-c", "{config}"),
    has_master=True,
    config=_CONFIG,
    packages=("rpccluster", "gevent", "msgpack"),
)


def _module(name: str) -> tuple[str, ...]:
    return ("{python}", "-m", f"bench.servers.{name}")


_GUNICORN = (
    "--worker-class gevent --workers 1 --bind 127.0.0.1:0 --keep-alive 75 --worker-connections 12000"
    " --no-control-socket bench.servers.gunicorn_app:application"
)

PEERS = {
    peer.name: peer
    for peer in (
        Peer("floor", "C, bare epoll; methods cannot block", ("{floor}",)),
        Peer(
            "uvloop",
            "bare uvloop protocol with msgpack; methods cannot block",
            _module("uvloop_server"),
            packages=("uvloop", "msgpack"),
        ),
        RPCCLUSTER,
        Peer(
            "msgpackrpc",
            "msgpack-rpc-python 0.4.1 on tornado 4.5, msgpack-python 0.5.6; methods cannot block",
            ("{old_python}", "-m", "bench.servers.msgpackrpc_server"),
            encoding="old-msgpack",
        ),
        Peer(
            "gunicorn",
            "gunicorn's gevent worker, JSON over HTTP keep-alive",
            ("{python}", "-m", "gunicorn", *_GUNICORN.split()),
            load="http",
            encoding="json",
            has_master=True,
            can_pipeline=False,
            packages=("gunicorn", "gevent"),
        ),
        Peer(
            "zerorpc",
            "zerorpc's server, called by its own client",
            _module("zerorpc_server"),
            load="zerorpc_load",
            packages=("zerorpc", "pyzmq"),
        ),
        Peer(
            "grpcio",
            "grpcio's server with its thread pool, called by its own asyncio client",
            _module("grpc_server"),
            load="grpc_load",
            packages=("grpcio", "protobuf"),
        ),
    )
}


_KINDS_CONFIG = (
    _CONFIG.replace("{service}", "bench.service:Kinds")
    + """
[pool:bench]
processes = 1
queue_size = 10000
"""
)

#: The kinds of methods, each a row: all are called at one daemon, whose service has one method of each kind.
KINDS = tuple(
    replace(RPCCLUSTER, name=name, what=what, config=_KINDS_CONFIG)
    for name, what in (
        ("plain", "a plain method, in a greenlet"),
        ("thread", "a method with thread=True"),
        ("coroutine", "an async def method"),
        ("pool", "a method with pool=…, in the one process of a pool"),
    )
)

#: What runs beside other calls, each a row: a method of that daemon and its name in the table.
BESIDE = tuple(
    replace(KINDS[0], name=name, what=what)
    for name, what in (
        ("nothing", "the calls alone"),
        ("sleep_in_c", "a method in a thread that sleeps in C"),
        ("compute", "a method in a thread that computes in Python"),
        ("sleep_on_loop", "a hundred coroutines that sleep"),
        ("compute_in_pool", "a method of a pool that computes in Python"),
    )
)


#: Pools of processes, each a row: the program that uses one is `bench.loads.task_load`.
POOLS = tuple(
    Peer(name, what, (), packages=packages)
    for name, what, packages in (
        ("rpccluster", "rpccluster.TaskPool", ("rpccluster",)),
        ("executor", "concurrent.futures.ProcessPoolExecutor", ()),
        ("multiprocessing", "multiprocessing.Pool, apply_async", ()),
        ("billiard", "billiard.Pool, apply_async", ("billiard",)),
        ("pebble", "pebble.ProcessPool, schedule", ("pebble",)),
    )
)

#: Queues, each a row: their servers are in `bench.servers.queue_server`, their clients in `bench.loads.queue_clients`.
QUEUES = tuple(
    Peer(name, what, (), packages=packages)
    for name, what, packages in (
        ("rpccluster", "rpccluster's keeper, durable = always", ("rpccluster",)),
        ("managers", "multiprocessing.managers: a queue in memory; an item is gone with its consumer", ()),
        ("redis streams", "Redis, appendfsync always, a consumer group, XDEL after XACK, by redis-py", ("redis",)),
        ("beanstalkd", "beanstalkd -b -f 0, by greenstalk", ("greenstalk",)),
        ("litequeue", "litequeue, synchronous = NORMAL: a put is not on disk yet", ("litequeue",)),
        ("persist-queue", "persist-queue's SQLiteAckQueue", ("persist-queue",)),
    )
)


def choose(names: str) -> tuple[Peer, ...]:
    """The peers of a comma-separated list, in the table's order; all for an empty one. Raises ValueError."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = sorted(set(wanted) - set(PEERS))
    if unknown:
        raise ValueError(f"found the peers {', '.join(unknown)}, expected some of {', '.join(PEERS)}")
    return tuple(peer for peer in PEERS.values() if not wanted or peer.name in wanted)


def build_in(folder: str) -> Peer:
    """The same daemon from another checkout of this project, which has an environment of its own."""
    command = (f"{folder}/bin/rpccluster", *RPCCLUSTER.command[1:])
    return replace(RPCCLUSTER, name=BEFORE, what=f"the build in {folder}", command=command, folder=folder)


def with_workers(workers: int) -> Peer:
    """This project's daemon with that many workers."""
    noun = "worker" if workers == 1 else "workers"
    return replace(RPCCLUSTER, name=f"rpccluster, {workers} {noun}", workers=workers)


def client(name: str, load: str, server: str = "rpccluster", python: str = "{python}", folder: str = "") -> Peer:
    """A client to measure, on the server of one of the peers; in another checkout, with its environment."""
    python = f"{folder}/.venv/bin/python" if folder else python
    return replace(PEERS[server], name=name, load=load, load_python=python, folder=folder)
