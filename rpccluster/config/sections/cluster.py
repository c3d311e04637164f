"""Every option of the cluster as data: its value type, default and meaning, and whether HUP changes it. Any process.

Reads no file and no flag. The rest of `rpccluster.config`, the command line, etc/cluster.ini and the documentation
follow this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, TypeVar, cast

from rpccluster.address import Address, TCPAddress, UnixAddress
from rpccluster.config import values
from rpccluster.config.cpus import CPU_NONE, MOST_WORKERS, CPUChoice, default_workers
from rpccluster.config.values import ValueType

__all__ = ["OPTIONS", "Option", "Options"]

T = TypeVar("T")

_MANY = 2**31 - 1  # what a C int holds: listen(2), and msgpack's buffer


@dataclass(frozen=True)
class Option:
    """Describes one option.

    ``default`` is a value, or None if ``compute`` derives it from the machine or from other options. ``default_text``
    writes the default as a file would, or describes a computed one. ``hup`` says whether a HUP may change the option.
    ``flags`` are its command-line flags, the long one last.
    """

    type: ValueType[Any]
    default: Any
    meaning: str
    hup: bool = True
    flags: tuple[str, ...] = ()
    compute: Callable[[Options], Any] | None = None
    default_text: str = ""


def _option(value_type: ValueType[T], default: T, meaning: str, *, hup: bool = True, flags: tuple[str, ...] = ()) -> T:
    option = Option(value_type, default, meaning, hup, flags, None, value_type.write(default))
    return field(default=default, metadata={"option": option})


def _computed(
    value_type: ValueType[T],
    compute: Callable[[Options], T],
    default_text: str,
    meaning: str,
    *,
    hup: bool = True,
    flags: tuple[str, ...] = (),
) -> T:
    option = Option(value_type, None, meaning, hup, flags, compute, default_text)
    return cast(T, field(default=None, metadata={"option": option}))


_COUNT = values.integer(0)
_POSITIVE = values.integer(1, _MANY)


@dataclass(frozen=True)
class Options:
    """The options of one cluster, typed: sizes in bytes, durations in seconds, paths absolute or empty."""

    service: str = _option(values.SERVICE, "", "module:Class or module:object; a class is made once in each worker")
    pythonpath: tuple[str, ...] = _option(
        values.FOLDERS, (), "folders to put before sys.path, separated by commas", flags=("--pythonpath",)
    )
    bind: tuple[Address, ...] = _option(
        values.ADDRESSES,
        (TCPAddress("127.0.0.1", 18800),),
        "addresses to listen at, separated by commas: tcp://HOST:PORT or unix:///path",
        flags=("-b", "--bind"),
    )
    unix_socket: str = _option(values.SOCKET_PATH, "", "one more address, as a plain path")
    unix_socket_mode: int = _option(values.MODE, 0o600, "permissions of Unix sockets, in octal")
    backlog: int = _option(_POSITIVE, 2048, "connections that may wait to be accepted")

    number_workers: int = _computed(
        values.integer(1, MOST_WORKERS),
        lambda options: default_workers(),
        "the CPUs this process may run on, at most its cgroup's quota",
        "worker processes",
        flags=("-w", "--workers"),
    )
    accept_lock: bool = _option(
        values.BOOLEAN, True, "keep the connections even among workers; false: each worker accepts whenever it can"
    )
    cpu_affinity: CPUChoice = _option(  # noqa: RUF009 - it returns a field
        values.CPUS, CPU_NONE, "none, auto (distinct cores first), or a list such as 0-3,8: worker k gets the k-th CPU"
    )
    rebalance: bool = _option(values.BOOLEAN, True, "even the connections out when a worker gets ready")

    max_requests: int = _option(_COUNT, 0, "calls after which a worker is recycled; 0: never")
    max_requests_jitter: int = _option(
        _COUNT, 0, "most calls that may be added to max_requests; each worker draws a number"
    )
    max_memory: int = _option(values.SIZE, 0, "resident memory past which a worker is recycled (K, M, G); 0: never")
    max_lifetime: float = _option(values.DURATION, 0.0, "seconds after which a worker is recycled; 0: never")

    timeout: float = _option(
        values.DURATION, 30.0, "seconds without a heartbeat after which a worker is killed; 0: never"
    )
    graceful_timeout: float = _option(
        values.DURATION, 30.0, "seconds that a retiring worker may spend on the calls it has"
    )
    restart_delay: float = _option(
        values.DURATION,
        1.0,
        "seconds of the first pause when workers of a slot die in a row; each further death doubles it",
    )
    restart_delay_max: float = _option(values.DURATION, 30.0, "the longest such pause in seconds; 0: none")
    call_timeout: float = _option(
        values.DURATION, 0.0, "seconds that a call may take before its caller gets a timeout error; 0: no limit"
    )
    max_greenlets: int = _option(
        _POSITIVE,
        1000,
        "calls that run at once in one worker; at the limit it stops reading, and accepting until one ends",
    )
    worker_connections: int = _option(_POSITIVE, 10000, "connections of one worker")
    max_pending_calls: int = _option(
        _POSITIVE, 1024, "unanswered calls of one connection; at the limit the worker stops reading it"
    )
    max_message_size: int = _option(values.size(1, _MANY), 16 << 20, "bytes of the largest message (K, M, G)")
    max_depth: int = _option(values.integer(2, 500), 100, "levels of nesting in a message")

    idle_timeout: float = _option(
        values.DURATION, 0.0, "seconds without a message after which a connection is closed; 0: never"
    )
    message_timeout: float = _option(
        values.DURATION, 30.0, "seconds to complete a message once its first byte has come; 0: no limit"
    )
    write_timeout: float = _option(
        values.DURATION, 60.0, "seconds that a peer may leave its replies unread; 0: no limit"
    )
    tcp_keepalive: int = _option(
        values.integer(0, 32767), 60, "seconds of silence before the kernel asks whether the peer lives; 0: off"
    )

    pidfile: str = _option(
        values.PATH, "", "file with the master's pid, locked while the master lives", hup=False, flags=("-p", "--pid")
    )
    single_instance: bool = _computed(
        values.BOOLEAN,
        lambda options: bool(options.pidfile),
        "true if pidfile is set, else false",
        "refuse a second start; needs a pidfile",
        hup=False,
    )
    control_socket: str = _option(
        values.SOCKET_PATH, "", "Unix socket of the control commands: status, scale, stop …", hup=False
    )
    daemonize: bool = _option(values.BOOLEAN, False, "run in the background", hup=False, flags=("-D", "--daemon"))
    proc_name: str = _option(values.NAME, "rpccluster", "the name that ps shows", flags=("-n", "--name"))
    user: str = _option(values.ACCOUNT, "", "account of the workers, name or number", hup=False, flags=("-u", "--user"))
    group: str = _option(
        values.ACCOUNT, "", "Unix group of the workers, name or number", hup=False, flags=("-g", "--group")
    )
    umask: int | None = _option(values.UMASK, None, "umask in octal; empty: that of the start")
    chdir: str = _option(values.PATH, "", "folder that the workers run in; empty: the start folder", flags=("--chdir",))

    log_file: str = _option(values.LOG_FILE, "", "path of the log, or stderr", flags=("--log-file",))
    log_level: str = _option(values.LOG_LEVEL, "info", values.LOG_LEVEL.expected, flags=("--log-level",))
    access_log: str = _option(values.ACCESS_LOG, "off", "one line for each call: off, on (in the log) or a path")

    def __post_init__(self) -> None:
        for key, option in _options_of(self):
            if option.compute is not None and getattr(self, key) is None:
                object.__setattr__(self, key, option.compute(self))

    @property
    def listen_addresses(self) -> tuple[Address, ...]:
        """All addresses to listen at: ``bind`` and ``unix_socket``."""
        return self.bind + ((UnixAddress(self.unix_socket),) if self.unix_socket else ())


def _options_of(options: Options | type[Options]) -> list[tuple[str, Option]]:
    return [(each.name, each.metadata["option"]) for each in fields(options)]


#: Every option by its key, in the order in which they are shown.
OPTIONS: Mapping[str, Option] = MappingProxyType(dict(_options_of(Options)))
