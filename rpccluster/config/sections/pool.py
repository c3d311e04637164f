"""The sections ``[pool:NAME]``: every option of a pool of processes that run tasks. Any process.

Reads no file. The rest of `rpccluster.config`, etc/pools.ini and the documentation follow this table.
`rpccluster.master.kinds` runs the processes, and the dispatcher gives them their tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from rpccluster.config import process_values, values
from rpccluster.config.checks import Complaint, Machine, check_account, check_cpus, check_niceness
from rpccluster.config.cpus import CPU_INHERITED, MOST_WORKERS, CPUChoice, default_workers
from rpccluster.config.sections import cluster
from rpccluster.config.sections.option import Effect, Section, compute_defaults, computed, family, live, option

__all__ = ["POOL", "PoolOptions", "complaints", "with_cluster"]

MOST_SPARES = 64


@dataclass(frozen=True)
class PoolOptions:
    """The options of one pool, typed: sizes in bytes, durations in seconds.

    `with_cluster` fills in what it has from ``[cluster]``.
    """

    processes: int = computed(
        values.integer(1, MOST_WORKERS),
        lambda options: default_workers(),
        "the CPUs this process may run on, at most its cgroup's quota",
        "how many tasks run at once, each in a process of its own",
        effect=Effect.NOW,
    )
    spare: int = live(values.integer(0, MOST_SPARES), 1, "booted processes beyond these, which replace others at once")
    targets: tuple[str, ...] = option(
        process_values.TARGETS, (), "modules, or module:function, that may be run, separated by commas"
    )
    queue: str = option(values.LINE, "", "the queue whose items are tasks, for the one function of targets")
    queue_size: int = live(values.integer(1), 1000, "how many tasks may wait for a process")

    timeout: float = live(values.DURATION, 0.0, "seconds after which a task is killed, from its begin; 0: never")
    soft_timeout: float = live(values.DURATION, 0.0, "seconds after which SoftTimeLimit is raised in a task; 0: never")
    max_memory: int = option(
        values.SIZE, 0, "resident memory, with its children's, past which a task is killed (K, M, G); 0: never"
    )
    max_tasks: int = live(values.integer(0), 0, "tasks after which a process is replaced; 0: never")
    max_tasks_jitter: int = live(values.integer(0), 0, "up to so many more tasks, by chance")
    max_lifetime: float = live(values.DURATION, 0.0, "seconds after which an idle process is replaced; 0: never")
    restart_delay: float = live(values.DURATION, 1.0, "the first pause after failed starts, doubled by each more")
    restart_delay_max: float = live(values.DURATION, 30.0, "the longest such pause in seconds; 0: none")
    stop_timeout: float = live(values.DURATION, 10.0, "seconds that a task may go on when its process must end")

    leader_only: bool = option(values.BOOLEAN, False, "run tasks only where the cluster leads")
    user: str = option(values.ACCOUNT, "", "their account, name or number; empty: the cluster's")
    group: str = option(values.ACCOUNT, "", "their Unix group; empty: that of their user, or the cluster's")
    nice: int | None = option(process_values.NICE, None, "their niceness, -20 to 19; empty: the master's")
    cpu_affinity: CPUChoice = option(  # noqa: RUF009 - it returns a field
        process_values.CPUS_OR_CLUSTERS, CPU_INHERITED, "their CPUs: none, auto or a list; empty: the cluster's"
    )
    env: Mapping[str, str] = family(process_values.TEXT, "a variable of their environment")

    service: str = ""
    boot_timeout: float = 0.0  # the cluster's ``timeout``, which bounds the boots of workers, too
    chdir: str = ""
    umask: int | None = None
    log_level: str = "info"
    log_format: str = "text"
    proc_name: str = "rpccluster"
    pythonpath: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        compute_defaults(self)

    @property
    def graceful_timeout(self) -> float:
        """Seconds that a process which is told to end may take."""
        return self.stop_timeout


def with_cluster(options: PoolOptions, of_cluster: cluster.Options) -> PoolOptions:
    """Fill in what ``options`` do not say themselves and have from ``[cluster]``, for a process that starts now."""
    return replace(
        options,
        user=options.user or of_cluster.user,
        group=options.group or ("" if options.user else of_cluster.group),
        cpu_affinity=of_cluster.cpu_affinity if options.cpu_affinity == CPU_INHERITED else options.cpu_affinity,
        service=of_cluster.service,
        boot_timeout=of_cluster.timeout,
        chdir=of_cluster.chdir,
        umask=of_cluster.umask,
        log_level=of_cluster.log_level,
        log_format=of_cluster.log_format,
        proc_name=of_cluster.proc_name,
        pythonpath=of_cluster.pythonpath,
    )


def complaints(options: PoolOptions, machine: Machine, config_path: str | None = None) -> list[Complaint]:
    """Return every fault of ``options`` on ``machine``. ``config_path`` is not needed."""
    return [
        *_limits(options),
        *_queue(options),
        *check_account("user", options.user, machine.uid_of, machine, machine.euid),
        *check_account("group", options.group, machine.gid_of, machine, machine.egid),
        *check_cpus("cpu_affinity", options.cpu_affinity, machine),
        *check_niceness("nice", options.nice, machine),
    ]


def _limits(options: PoolOptions) -> Iterator[Complaint]:
    if options.soft_timeout and options.timeout and options.soft_timeout >= options.timeout:
        problem = f"found {options.soft_timeout:g}, expected less than timeout, which is {options.timeout:g}"
        yield Complaint(("soft_timeout", "timeout"), problem)
    if options.max_tasks_jitter and not options.max_tasks:
        problem = "found it without max_tasks, expected both, or neither"
        yield Complaint(("max_tasks_jitter",), problem, if_given=True)


def _queue(options: PoolOptions) -> Iterator[Complaint]:
    if options.queue and (len(options.targets) != 1 or ":" not in options.targets[0]):
        problem = "found a queue, expected one module:function in targets, which is called with each item"
        yield Complaint(("targets", "queue"), problem)


POOL = Section("pool", PoolOptions, complaints, is_named=True, makes_processes=True)
