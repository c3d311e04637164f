"""The section ``[cluster]``: every option of the master and of the RPC workers, and what must go together. Any process.

Reads no file and no flag. The rest of `rpccluster.config`, the command line, etc/cluster.ini and the documentation
follow this table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rpccluster.address import BindAddress, TCPAddress, UnixAddress
from rpccluster.config import process_values, values
from rpccluster.config.authkeys import NO_KEYS, KeyFile
from rpccluster.config.checks import (
    Complaint,
    Machine,
    UsedPath,
    check_account,
    check_addresses,
    check_cpus,
    check_folder,
    check_shared_paths,
    check_usable_paths,
)
from rpccluster.config.cpus import CPU_NONE, MOST_WORKERS, CPUChoice, default_workers
from rpccluster.config.sections.option import Effect, Section, compute_defaults, computed, fixed, live, option

__all__ = ["CLUSTER", "FOR_WORKERS", "OPTIONS", "Options", "cluster_paths", "complaints"]

_MANY = 2**31 - 1  # what a C int holds: listen(2), and msgpack's buffer
_COUNT = values.integer(0)
_POSITIVE = values.integer(1, _MANY)
_OWNS = "sockets and logs that are open belong to that account"


@dataclass(frozen=True)
class Options:
    """The options of one cluster, typed: sizes in bytes, durations in seconds, paths absolute or empty."""

    service: str = option(values.SERVICE, "", "module:Class or module:object; a class is made once in each worker")
    pythonpath: tuple[str, ...] = option(
        values.FOLDERS, (), "folders to put before sys.path, separated by commas", flags=("--pythonpath",)
    )
    include: tuple[str, ...] = live(
        values.FILES, (), "further files, from this file's folder: conf.d/*.ini, plugins/conf.json"
    )
    bind: tuple[BindAddress, ...] = option(
        values.BIND,
        (TCPAddress("127.0.0.1", 18800),),
        "addresses, separated by commas: tcp:// or tcp+proxy://HOST:PORT, unix:///path, fd:// or fd://NAME",
        flags=("-b", "--bind"),
    )
    unix_socket: str = option(values.SOCKET_PATH, "", "one more address, as a plain path")
    unix_socket_mode: int = live(values.MODE, 0o600, "permissions of Unix sockets, in octal")
    backlog: int = live(_POSITIVE, 2048, "connections that may wait to be accepted")

    authkey_file: KeyFile = live(  # noqa: RUF009 - it returns a field
        values.KEY_FILE,
        NO_KEYS,
        "file of mode 0600, KEY or NAME KEY a line; TCP peers, those of the queues, too, must prove one",
    )
    auth_timeout: float = live(values.DURATION, 5.0, "seconds that a peer may take to prove a key; 0: no limit")

    proxy_from: str = live(
        values.NETWORKS, values.LOOPBACK, "addresses and networks of the proxies at tcp+proxy://, separated by commas"
    )

    after: tuple[str, ...] = live(
        process_values.GROUPS, (), "groups and plugins that are ready before the workers start, separated by commas"
    )
    number_workers: int = computed(
        values.integer(1, MOST_WORKERS),
        lambda options: default_workers() if options.service else 0,
        "the CPUs this process may run on, at most its cgroup's quota",
        "worker processes",
        effect=Effect.NOW,
        flags=("-w", "--workers"),
    )
    engine: str = option(
        values.choice("auto", "compiled", "python"),
        "auto",
        "runs the calls: auto (compiled where it was built), compiled or python",
    )
    expose: str = option(
        values.choice("public", "marked"), "public", "which methods are served: public, or only those marked with rpc"
    )
    accept_lock: bool = option(
        values.BOOLEAN, True, "keep the connections even among workers; false: each worker accepts whenever it can"
    )
    cpu_affinity: CPUChoice = option(  # noqa: RUF009 - it returns a field
        values.CPUS, CPU_NONE, "none, auto (distinct cores first), or a list such as 0-3,8: worker k gets the k-th CPU"
    )
    rebalance: bool = live(values.BOOLEAN, True, "even the connections out when a worker gets ready")
    crash_safe: bool = option(
        values.BOOLEAN,
        True,
        "connections of a killed worker go on in another one, where the compiled engine runs the calls",
    )
    reload_on_change: bool = live(
        values.BOOLEAN, False, "reload when a configuration file has changed, after a second without a change"
    )
    reload_code: bool = option(
        values.BOOLEAN, False, "reload when a module that the service has imported changes", flags=("--reload",)
    )
    settings_timeout: float = live(values.DURATION, 5.0, "seconds that processes may take to agree to new settings")

    max_requests: int = live(_COUNT, 0, "calls after which a worker is recycled; 0: never")
    max_requests_jitter: int = live(
        _COUNT, 0, "most calls that may be added to max_requests; each worker draws a number"
    )
    max_memory: int = live(values.SIZE, 0, "resident memory past which a worker is recycled (K, M, G); 0: never")
    max_lifetime: float = live(values.DURATION, 0.0, "seconds after which a worker is recycled; 0: never")

    timeout: float = live(values.DURATION, 30.0, "seconds without a heartbeat after which a worker is killed; 0: never")
    stall_warning: float = live(
        values.DURATION, 0.2, "seconds that a worker's loop may be held up before that is logged and counted; 0: never"
    )
    graceful_timeout: float = live(
        values.DURATION, 30.0, "seconds that a retiring worker may spend on the calls it has"
    )
    restart_delay: float = live(
        values.DURATION,
        1.0,
        "seconds of the first pause when workers of a slot die in a row; each further death doubles it",
    )
    restart_delay_max: float = live(values.DURATION, 30.0, "the longest such pause in seconds; 0: none")
    call_timeout: float = live(
        values.DURATION, 0.0, "seconds that a call may take before its caller gets a timeout error; 0: no limit"
    )
    cancel_on_disconnect: bool = live(
        values.BOOLEAN, False, "whether a call is cancelled when its caller's connection ends; @rpc has the last word"
    )
    max_greenlets: int = live(
        _POSITIVE,
        1000,
        "calls that run at once in one worker; at the limit it stops reading, and accepting until one ends",
    )
    threads: int = live(values.integer(1, 1000), 8, "native threads of one worker for methods marked with thread=True")
    thread_queue: int = live(
        _COUNT, 100, "calls that may wait for a thread in one worker; further ones begin when others have ended"
    )
    worker_connections: int = live(_POSITIVE, 10000, "connections of one worker")
    max_pending_calls: int = live(
        _POSITIVE, 1024, "unanswered calls of one connection; at the limit the worker stops reading it"
    )
    max_message_size: int = live(values.size(1, _MANY), 16 << 20, "bytes of the largest message (K, M, G)")
    max_depth: int = live(values.integer(2, 500), 100, "levels of nesting in a message")

    idle_timeout: float = live(
        values.DURATION, 0.0, "seconds without a message after which a connection is closed; 0: never"
    )
    message_timeout: float = live(
        values.DURATION, 30.0, "seconds to complete a message once its first byte has come; 0: no limit"
    )
    write_timeout: float = live(values.DURATION, 60.0, "seconds that a peer may leave its replies unread; 0: no limit")
    tcp_keepalive: int = live(
        values.integer(0, 32767), 60, "seconds of silence before the kernel asks whether the peer lives; 0: off"
    )

    pidfile: str = fixed(
        values.PATH,
        "",
        "file with the master's pid, locked while the master lives",
        reason="the master holds the lock of its pidfile as long as it lives",
        flags=("-p", "--pid"),
    )
    single_instance: bool = computed(
        values.BOOLEAN,
        lambda options: bool(options.pidfile),
        "true if pidfile is set, else false",
        "refuse a second start; needs a pidfile",
        effect=Effect.RESTART,
        reason="the master holds the lock of its pidfile as long as it lives",
    )
    control_socket: str = fixed(
        values.SOCKET_PATH,
        "",
        "Unix socket of the control commands: status, scale, stop …",
        reason="commands find this cluster by its socket",
        flags=("--control",),
    )
    daemonize: bool = fixed(
        values.BOOLEAN,
        False,
        "run in the background",
        reason="a process goes to the background at its start alone",
        flags=("-D", "--daemon"),
    )
    proc_name: str = option(values.NAME, "rpccluster", "the name that ps shows", flags=("-n", "--name"))
    user: str = fixed(
        values.ACCOUNT, "", "account of the workers, name or number", reason=_OWNS, flags=("-u", "--user")
    )
    group: str = fixed(
        values.ACCOUNT, "", "Unix group of the workers, name or number", reason=_OWNS, flags=("-g", "--group")
    )
    umask: int | None = option(values.UMASK, None, "umask in octal; empty: that of the start")
    chdir: str = option(values.PATH, "", "folder that the workers run in; empty: the start folder", flags=("--chdir",))

    log_file: str = option(values.LOG_FILE, "", "path of the log, or stderr", flags=("--log-file",))
    log_level: str = live(values.LOG_LEVEL, "info", values.LOG_LEVEL.expected, flags=("--log-level",))
    log_format: str = live(values.LOG_FORMAT, "text", "text, or json: one object a line, also in the access log")
    access_log: str = live(values.ACCESS_LOG, "off", "one line for each call: off, on (in the log) or a path")

    #: The rules of ``[access]``, as the master tells them; empty without that section.
    access: str = field(default="", metadata={"is_live": True})

    def __post_init__(self) -> None:
        compute_defaults(self)

    @property
    def listen_addresses(self) -> tuple[BindAddress, ...]:
        """All addresses that the workers listen at: ``bind`` and ``unix_socket``; none without a service."""
        if not self.service:
            return ()
        return self.bind + ((UnixAddress(self.unix_socket),) if self.unix_socket else ())

    @property
    def authkeys(self) -> str:
        """The keys of ``authkey_file`` as processes tell them each other; empty without any."""
        return self.authkey_file.text


def complaints(options: Options, machine: Machine, config_path: str | None = None) -> list[Complaint]:
    """Return every fault of ``options`` on ``machine``. ``config_path`` is the file that set them."""
    paths = cluster_paths(options)
    return [
        *_instance(options),
        *_listening(options),
        *_keys(options),
        *check_account("user", options.user, machine.uid_of, machine, machine.euid),
        *check_account("group", options.group, machine.gid_of, machine, machine.egid),
        *check_cpus("cpu_affinity", options.cpu_affinity, machine),
        *(complaint for folder in options.pythonpath for complaint in check_folder("pythonpath", folder)),
        *check_folder("chdir", options.chdir),
        *check_shared_paths(paths, config_path),
        *check_usable_paths(paths),
    ]


def _instance(options: Options) -> Iterator[Complaint]:
    if options.single_instance and not options.pidfile:
        yield Complaint(("single_instance", "pidfile"), "found true without a pidfile, expected false or a pidfile")


def _listening(options: Options) -> Iterator[Complaint]:
    if options.service and not options.listen_addresses:
        yield Complaint(("bind", "unix_socket"), "found no address, expected one, or a unix_socket")
    yield from check_addresses("bind", options.bind)


def _keys(options: Options) -> Iterator[Complaint]:
    if options.authkey_file.problem:
        yield Complaint(("authkey_file",), options.authkey_file.problem)


def cluster_paths(options: Options) -> list[UsedPath]:
    """Return the files and sockets that ``options`` name."""
    access_log = "" if options.access_log in ("on", "off") else options.access_log
    binds = [address.path for address in dict.fromkeys(options.bind) if isinstance(address, UnixAddress)]
    paths = [
        UsedPath("pidfile", options.pidfile, False),
        UsedPath("control_socket", options.control_socket, True),
        *(UsedPath("bind", path, True) for path in binds),
        UsedPath("unix_socket", options.unix_socket, True),
        UsedPath("log_file", options.log_file, False),
        UsedPath("access_log", access_log, False),
    ]
    return [each for each in paths if each.path]


CLUSTER = Section("cluster", Options, complaints, required=("service",))

#: Every option by its key, in the order in which they are shown.
OPTIONS = CLUSTER.options

_FOR_ALL = {
    *(
        "service",
        "pythonpath",
        "include",
        "reload_on_change",
        "graceful_timeout",
        "authkey_file",
        "auth_timeout",
        "cpu_affinity",
        "unix_socket_mode",
        "backlog",
    ),
    *("settings_timeout", "pidfile", "single_instance", "control_socket", "daemonize", "proc_name"),
    *("user", "group", "umask", "chdir", "log_file", "log_level", "log_format"),
}

#: The keys that only workers use, so that they are faults where there are none.
FOR_WORKERS = frozenset(OPTIONS.keys() - _FOR_ALL)
