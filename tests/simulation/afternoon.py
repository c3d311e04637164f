"""One afternoon of a master, by a plan: it starts, is used and maltreated, is left in peace, and stops.

While it is maltreated, workers and masters die, hang and cannot be forked, and commands come at any moment. Then no
more faults happen: within a stated time everything must be as it should, and the stop must leave nothing behind.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections import Counter

from rpccluster.config.configuration import Sources
from rpccluster.log import logger

from .children.leading import Store
from .children.serving.worker import Worker
from .masters.master import Master
from .plans.draw import draw
from .plans.plan import BAD, OLDER, Plan, Step
from .rules.always import ALWAYS
from .rules.leading import OF_LEADERSHIP
from .rules.peace import IN_PEACE
from .rules.plugins import OF_PLUGINS
from .rules.pools import OF_POOLS
from .rules.queues import OF_QUEUES
from .users.client import Client
from .users.happenings import HAPPENINGS, command, push_settings
from .world.process import Fault
from .world.scarcity import closed_ranks
from .world.world import World

__all__ = ["Afternoon", "Outcome", "live", "live_through"]

STOP_SECONDS = 8.0  # beyond graceful_timeout, in which a stopped master has ended: kills take 3
PEACE_SECONDS = 400.0  # in which everything has come right: an upgrade may be given up only after 300


class Outcome:
    """How a plan went. ``fault`` is empty if nothing went wrong; otherwise it is the last line of the story."""

    def __init__(self, plan: Plan, world: World, fault: str) -> None:
        self.plan = plan
        self.seed = plan.seed
        self.fault = fault
        self.story = world.story
        self.seconds = world.now - 1000.0
        self.steps = world.steps
        self.births = world.number_births


class Afternoon:
    """The course of one plan."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world = world
        self.plan = plan
        self.paths = {name: os.path.join(world.folder, name) for name in ("service", "control", "pid")}
        self.graceful = float(plan.options["graceful_timeout"])
        self.flags: dict[str, str] = {
            **plan.options,
            "service": "a:b",
            "bind": f"unix://{self.paths['service']}",
            "control_socket": self.paths["control"],
            "pidfile": self.paths["pid"],
            "proc_name": "good",
        }
        self._awaited = {step: step.nth for step in plan.steps if step.event is not None}
        world.checks += [*(OF_PLUGINS if plan.plugins else ()), *(OF_POOLS if plan.pools else ())]
        world.checks += [*(OF_LEADERSHIP if plan.leadership else ()), *(OF_QUEUES if plan.queues else ()), *ALWAYS]
        world.store = Store(world)
        world.on_event = self._note

    # -- its course

    def run(self) -> None:
        """Live through it. Raises `Fault`."""
        world, plan = self.world, self.plan
        sources = Sources(self._write_file(), environment=self.flags, start_folder=world.folder)
        master = Master(world, world.new_pid(), None, sources)
        master.boot_in(0.0)
        world.add(master)
        for step in plan.steps:
            if step.event is None:
                world.after(step.at, self._happen, step)
        chance = plan.chance("settings")
        for number in range(1, 3) if chance.random() < 0.1 and not plan.sections else ():
            world.after(chance.random() * plan.length, push_settings, self, number)
        world.run(world.now + plan.length, is_done=self._is_over)
        self._make_peace()
        self._stop()

    def _write_file(self) -> str | None:
        """Write the sections of plugins, if there are any, into a file. Returns its path."""
        if not self.plan.sections:
            return None
        path = os.path.join(self.world.folder, "cluster.ini")
        with open(path, "w") as file:
            file.write("[cluster]\n")
            for name, options in self.plan.sections:
                header = name if ":" in name or name in ("leadership", "metrics", "web") else f"plugin:{name}"
                file.write(f"[{header}]\n" + "".join(f"{key} = {value}\n" for key, value in options))
        return path

    def masters(self) -> list[Master]:
        """The masters that live, the oldest first."""
        return list(self.world.of_noun[Master.noun].values())

    def _is_over(self) -> bool:
        return not self.world.of_noun[Master.noun]

    def workers(self) -> list[Worker]:
        return list(self.world.of_noun[Worker.noun].values())

    def _happen(self, step: Step) -> None:
        if not self.world.is_calm:
            HAPPENINGS[step.what](self, step.random)

    def _note(self, kind: str, what: str) -> None:
        """Let the steps happen that wait for this event."""
        for step in [] if self.world.is_calm else self._awaited:
            if step.event == (kind, what):
                self._awaited[step] -= 1
                if not self._awaited[step]:
                    self.world.after(step.random.choice((0.0, 0.0, 0.001, 0.01, 0.1)), self._happen, step)

    def _is_bad(self) -> bool:
        """Whether a configuration in which no worker boots is in force, or is tried."""
        clusters = [master.parts.cluster for master in self.masters() if master.parts is not None]
        editions = [each for cluster in clusters for each in (cluster, cluster.staged) if each is not None]
        return any(edition.options.proc_name == BAD for edition in editions)

    def _make_peace(self) -> None:
        """No fault happens any more: after a while all is well, unless the cluster has ended."""
        world, chance = self.world, self.plan.chance("peace")
        world.is_calm, world.forks_fail_until = True, 0.0
        world.scarcity.end(world.now)
        world.store.make_peace()
        world.tell("peace", "from now on no fault happens")
        self.flags["proc_name"], self.flags["max_depth"] = "good", "100"
        for process in self.world.processes.values():
            process.resumes_at = world.now
        for worker in self.workers():
            worker.is_bad, worker.hangs_until = False, min(worker.hangs_until, world.now)
        callers = [each for each in world.clients.values() if isinstance(each, Client)]
        for client in callers[2:]:  # there may be too many for one worker
            client.hang_up()
        if self.plan.sections or self._is_bad() or chance.random() < 0.25:
            world.after(2.0 * chance.random(), command, self, signal.SIGHUP, chance)
        self._settle()
        if self.plan.idle_seconds:
            world.run(world.now + self.plan.idle_seconds, is_done=self._is_over)
            self._settle()  # a signal that had come before may have been obeyed only now

    def _settle(self) -> None:
        """Wait until all is well."""
        world, chance = self.world, self.plan.chance("settle")
        since = world.now
        why = ""

        def is_well() -> bool:
            nonlocal why
            why = next(filter(None, (each(self) for each in IN_PEACE)), "")
            return not why

        while self.masters() and not is_well():
            if world.now - since > PEACE_SECONDS:
                raise Fault(f"{PEACE_SECONDS:g} seconds after the last fault {why}")
            world.run(world.now + 1.0, is_done=self._is_over)
            if int(world.now - since) % 30 == 29 and self._is_bad():
                command(self, signal.SIGHUP, chance)  # the last one was refused, or came too early

    def _stop(self) -> None:
        world = self.world
        if self.masters():
            world.tell("user", "stops the cluster")
            self.masters()[-1].take_signal(self.plan.chance("stop").choice((signal.SIGTERM, signal.SIGINT)))
            if not world.run(world.now + self.graceful + STOP_SECONDS, is_done=self._is_over):
                raise Fault(f"the master has not ended {self.graceful + STOP_SECONDS:g} seconds after its stop")
        world.run(world.now + 2.0)
        left = [each.name for each in world.processes.values()]
        if left:
            raise Fault(f"processes outlive the cluster: {', '.join(left)}")
        sockets = ("service", "control", "control.pools", "control.leadership", "control.queues", "page", "numbers")
        paths = [name for name in sockets if os.path.exists(f"{world.folder}/{name}")]
        is_excused = world.masters_were_killed or self.plan.version == OLDER  # they may end and leave their paths
        if paths and not is_excused:
            raise Fault(f"paths outlive the cluster: {', '.join(paths)}")


def live_through(seed: int, counts: Counter[tuple[str, str]] | None = None, folder: str = "") -> Outcome:
    """Live through the afternoon of ``seed``, like `live`."""
    return live(draw(seed), counts, folder)


def live(plan: Plan, counts: Counter[tuple[str, str]] | None = None, folder: str = "") -> Outcome:
    """Live through the afternoon of ``plan``. Adds what was met to ``counts``.

    ``folder`` is an empty one, and will be again; if none is given, one is made and removed.
    """
    if not folder:
        with tempfile.TemporaryDirectory(prefix="rpccluster-simulation-") as made:
            return live(plan, counts, made)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()  # pytest's own would keep every line
    before = len(_open_descriptors())
    world = World(plan, folder, counts)
    try:
        with closed_ranks() if world.is_scarce else contextlib.nullcontext():
            fault = _run(world)
    finally:
        logger.write_by(None)
        logging.captureWarnings(False)
        root.handlers[:], root.level = handlers, level
        for entry in os.listdir(folder):
            os.unlink(os.path.join(folder, entry))
    left = len(_open_descriptors()) - before
    if left and sys.implementation.name == "pypy":
        gc.collect()  # a socket that nobody has closed lives until then; others' may have ended meanwhile
        left = max(0, len(_open_descriptors()) - before)
    if left and not fault:
        fault = f"{left} descriptors outlive the cluster"
        world.tell("broken", fault)
    return Outcome(plan, world, fault)


def _run(world: World) -> str:
    """Live through the plan of ``world``. Returns the fault that was met; empty if there was none."""
    fault = ""
    try:
        Afternoon(world, world.plan).run()
    except Fault as error:
        fault = str(error)
    except Exception as error:  # raised by a process, real or made up, and caught by nobody
        at = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{type(error).__name__} is raised in {at.name} of {os.path.basename(at.filename)}: {error}"
    if not fault and world.errors:
        fault = f"a fault of rpccluster was caught: {world.errors[0].splitlines()[-1]}"
    if fault:
        world.tell("broken", fault)
    told = len(world.story)
    world.close()
    del world.story[told:]  # nothing more happens
    if fault:
        gc.collect()  # what was left in the middle would be missed at the end of another afternoon
    return fault


def _open_descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")
