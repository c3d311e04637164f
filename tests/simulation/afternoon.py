"""One afternoon of a master, by a seed: it starts, is used and maltreated, is left in peace, and stops.

While it is maltreated, workers and masters die, hang and cannot be forked, and commands come at any moment. Then no
more faults happen: within a stated time everything must be as it should, and the stop must leave nothing behind.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections import Counter
from typing import Any, Callable

from rpccluster.config.configuration import Sources
from rpccluster.log import logger

from .client import Client, Controller
from .invariants import ALWAYS, IN_PEACE
from .master import Master
from .worker import BAD, Worker
from .world import Fault, World

__all__ = ["Afternoon", "Outcome", "live_through"]

STOP_SECONDS = 8.0  # beyond graceful_timeout, in which a stopped master has ended: kills take 3
IDLE_SECONDS = 1800.0  # in which nobody wants anything
PEACE_SECONDS = 400.0  # in which everything has come right: an upgrade may be given up only after 300


class Outcome:
    """How a seed went. ``fault`` is empty if nothing went wrong."""

    def __init__(self, world: World, fault: str) -> None:
        self.seed = world.seed
        self.fault = fault
        self.story = world.story
        self.seconds = world.now - 1000.0
        self.steps = world.steps


class Afternoon:
    """The plan of one seed, and its course."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.paths = {name: os.path.join(world.folder, name) for name in ("service", "control", "pid")}
        choose = world.random.choice
        self.graceful = choose((1, 3, 10))
        self.flags: dict[str, str] = {
            "service": "a:b",
            "bind": f"unix://{self.paths['service']}",
            "control_socket": self.paths["control"],
            "pidfile": self.paths["pid"],
            "number_workers": str(choose((1, 1, 2, 3, 4))),
            "timeout": choose(("0", "5", "30")),
            "graceful_timeout": str(self.graceful),
            "restart_delay": choose(("0.5", "1")),
            "restart_delay_max": choose(("2", "8")),
            "max_lifetime": choose(("0", "0", "0", "15")),
            "rebalance": choose(("true", "true", "false")),
            "proc_name": "good",
            "worker_connections": choose(("10000", "10000", "3")),
        }
        world.checks += ALWAYS

    # -- its course

    def run(self) -> None:
        """Live through it. Raises `Fault`."""
        world = self.world
        master = Master(world, world.new_pid(), None, Sources(environment=self.flags, start_folder=world.folder))
        master.boot_in(0.0)
        world.add(master)
        length = world.between(5.0, 60.0)
        for _ in range(world.random.randrange(3, 30)):
            world.after(world.between(0.0, length), self._happen)
        if world.may(0.5):
            self._plan_upgrade(world.between(2.0, length))
        for _ in range(world.random.randrange(0, 6)):
            world.after(world.between(0.0, length), self._come)
        world.run(world.now + length, is_done=lambda: not self.masters())
        self._make_peace()
        self._stop()

    def _plan_upgrade(self, seconds: float) -> None:
        """Plan an upgrade in ``seconds``, and what comes in between its messages."""
        world = self.world
        world.after(seconds, self._command, signal.SIGUSR2)
        for _ in range(world.random.randrange(0, 4)):
            world.after(seconds + world.between(0.0, 6.0), self._happen)
        if world.may(0.3):
            world.at_handshake = world.random.randrange(1, 8)

    def masters(self) -> list[Master]:
        """The masters that live, the oldest first."""
        return list(self.world.of_noun[Master.noun].values())

    def workers(self) -> list[Worker]:
        return list(self.world.of_noun[Worker.noun].values())

    def _make_peace(self) -> None:
        """No fault happens any more: after a while all is well, unless the cluster has ended."""
        world = self.world
        world.is_calm, world.forks_fail_until = True, 0.0
        world.tell("peace", "from now on no fault happens")
        self.flags["proc_name"], self.flags["max_depth"] = "good", "100"
        for process in self.world.processes.values():
            process.resumes_at = world.now
        for worker in self.workers():
            worker.is_bad, worker.hangs_until = False, 0.0
        callers = [each for each in world.clients.values() if isinstance(each, Client)]
        for client in callers[2:]:  # there may be too many for one worker
            client.hang_up()
        if self.masters():
            world.after(world.between(0.0, 2.0), self._command, signal.SIGHUP)
        since = world.now
        why = ""

        def is_well() -> bool:
            nonlocal why
            why = next(filter(None, (each(self) for each in IN_PEACE)), "")
            return not why

        while self.masters() and not is_well():
            if world.now - since > PEACE_SECONDS:
                raise Fault(f"{PEACE_SECONDS:g} seconds after the last fault {why}")
            world.run(world.now + 1.0, is_done=lambda: not self.masters())
            if int(world.now - since) % 30 == 29 and any(each.is_bad for each in self.workers()):
                self._command(signal.SIGHUP)  # the last one was refused, or came too early
        if world.may(0.3):
            world.run(world.now + world.between(0.0, IDLE_SECONDS), is_done=lambda: not self.masters())

    def _stop(self) -> None:
        world = self.world
        if self.masters():
            self.masters()[0].take_signal(world.random.choice((signal.SIGTERM, signal.SIGINT)))
            world.tell("user", "stops the cluster")
            if not world.run(world.now + self.graceful + STOP_SECONDS, is_done=lambda: not self.masters()):
                raise Fault(f"the master has not ended {self.graceful + STOP_SECONDS:g} seconds after its stop")
        world.run(world.now + 2.0)
        left = [each.name for each in world.processes.values()]
        if left:
            raise Fault(f"processes outlive the cluster: {', '.join(left)}")
        paths = [name for name in ("service", "control") if os.path.exists(self.paths[name])]
        if paths and not world.masters_were_killed:  # one that is killed leaves its paths behind
            raise Fault(f"paths outlive the cluster: {', '.join(paths)}")

    # -- what happens to it

    def _come(self) -> None:
        """A client comes, makes some calls, and may go again."""
        world = self.world
        client = Client(world, self.paths["service"])
        for _ in range(world.random.randrange(0, 5)):
            world.after(world.between(0.0, 30.0), client.call)
        if world.may(0.3):
            world.after(world.between(0.0, 40.0), client.hang_up)

    def _command(self, signum: int) -> None:
        masters = self.masters()
        if masters:
            master = masters[0] if len(masters) == 1 or self.world.may(0.7) else masters[-1]
            if master.supervisor is None:
                return
            self.world.tell("user", f"sends {signal.Signals(signum).name} to {master.name}")
            self.world.count("command", signal.Signals(signum).name)
            master.take_signal(signum)

    def _happen(self) -> None:
        world = self.world
        if world.is_calm:
            return
        total = sum(weight for weight, _ in self._HAPPENINGS)
        drawn = world.random.random() * total
        for weight, do in self._HAPPENINGS:
            drawn -= weight
            if drawn < 0:
                do(self)
                return

    def _control(self) -> None:
        """Somebody asks at the control socket."""
        world = self.world
        method = world.random.choice(("status", "scale", "scale", "reload", "rebalance", "upgrade", "rpc.ping", "none"))
        params = [world.random.choice((1, 2, 4, "+1", "-1", "x"))] if method == "scale" else []
        if method == "reload":
            self._choose_configuration()
        controller = Controller(world, self.paths["control"], method, params)
        if world.may(0.1):
            world.after(world.between(0.0, 5.0), controller.hang_up)

    def _reload(self) -> None:
        self._choose_configuration()
        self._command(signal.SIGHUP)

    def _choose_configuration(self) -> None:
        world, flags = self.world, self.flags
        flags["number_workers"] = str(world.random.choice((1, 2, 3, 4)))
        flags["proc_name"] = BAD if world.may(0.3) else "good"
        flags["max_depth"] = "nonsense" if world.may(0.1) else "100"

    def _kill_worker(self) -> None:
        workers = self.workers()
        if workers:
            worker = self.world.random.choice(workers)
            self.world.tell("fate", f"kills {worker.name}")
            self.world.count("fault", "worker killed")
            worker.end(signum=self.world.random.choice((signal.SIGKILL, signal.SIGSEGV)))

    def _hang_worker(self) -> None:
        workers = self.workers()
        if workers:
            self.world.count("fault", "worker hangs")
            self.world.random.choice(workers).hang(self.world.between(0.1, 40.0))

    def _term_worker(self) -> None:
        workers = self.workers()
        if workers:
            self.world.random.choice(workers).take_signal(signal.SIGTERM)

    def _recycle_worker(self) -> None:
        workers = self.workers()
        if workers:
            self.world.random.choice(workers).ask_to_retire("max_requests")

    def _stop_master(self) -> None:
        """The master is not scheduled for a while."""
        masters = self.masters()
        if masters:
            seconds = self.world.between(0.1, 12.0)
            master = self.world.random.choice(masters)
            master.resumes_at = self.world.now + seconds
            self.world.count("fault", "master stands still")
            self.world.tell("fate", f"stops {master.name} for {seconds:.1f} seconds")

    def _kill_master(self) -> None:
        """Kill one of the two masters of an upgrade, or, seldom, the only one."""
        masters = self.masters()
        if len(masters) > 1 or (masters and self.world.may(0.02)):
            master = self.world.random.choice(masters)
            self.world.masters_were_killed = True
            self.world.tell("fate", f"kills {master.name}")
            self.world.count("fault", "one of two masters killed" if len(masters) > 1 else "master killed")
            master.end(signum=signal.SIGKILL)

    def _fail_forks(self) -> None:
        seconds = self.world.between(0.1, 5.0)
        self.world.forks_fail_until = self.world.now + seconds
        self.world.tell("fate", f"lets no process be forked for {seconds:.1f} seconds")

    def _remove_path(self) -> None:
        """Somebody clears a folder."""
        name = self.world.random.choice(list(self.paths))
        if os.path.exists(self.paths[name]):
            os.unlink(self.paths[name])
            for client in self.world.clients.values() if name == "service" else ():
                if not client.is_accepted:  # nobody may hold the old socket when the path leads to a new one
                    self.world.excuse(client.number, "it waits at a path that was removed")
            for watch in self.world.watches:
                watch.tell()
            self.world.tell("user", f"removes the path of {name}")

    def _signal(*signals: int) -> Callable[[Any], None]:  # type: ignore[misc]
        def send(self: Any) -> None:
            self._command(self.world.random.choice(signals))

        return send

    _HAPPENINGS: Any = (
        (4, _kill_worker),
        (3, _hang_worker),
        (2, _term_worker),
        (2, _recycle_worker),
        (2, _stop_master),
        (3, _control),
        (1, _fail_forks),
        (0.5, _remove_path),
        (2, _kill_master),
        (4, _reload),
        (4, _signal(signal.SIGTTIN, signal.SIGTTOU)),
        (2, _signal(signal.SIGUSR2)),
        (1, _signal(signal.SIGWINCH)),
        (1, _signal(signal.SIGUSR1)),
        (1, _signal(signal.SIGCONT)),
        (0.2, _signal(signal.SIGTERM)),
        (0.1, _signal(signal.SIGINT, signal.SIGQUIT)),
    )


def live_through(seed: int, counts: Counter[tuple[str, str]] | None = None) -> Outcome:
    """Live through the afternoon of ``seed``. Adds what was met to ``counts``."""
    folder = tempfile.mkdtemp(prefix="rpccluster-simulation-")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()  # pytest's own would keep every line
    before = _open_descriptors()
    world = World(seed, folder, counts)
    fault = ""
    try:
        Afternoon(world).run()
        if world.errors:
            fault = f"a fault of rpccluster was caught: {world.errors[0].splitlines()[-1]}"
    except Fault as error:
        fault = str(error)
    except AssertionError as error:
        fault = f"an assertion failed: {error}"
    finally:
        world.close()
        logger.write_by(None)
        logging.captureWarnings(False)
        root.handlers[:], root.level = handlers, level
        shutil.rmtree(folder, ignore_errors=True)
    left = len(_open_descriptors()) - len(before)
    if left and not fault:
        fault = f"{left} descriptors outlive the cluster"
    return Outcome(world, fault)


def _open_descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")
