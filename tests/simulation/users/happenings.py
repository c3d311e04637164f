"""What may happen in an afternoon: workers and masters are killed, commands come, callers come and go.

Each is one function, called by its name in a plan (`plan.WEIGHTS`). Its details come from the chance of its step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from ..children.leading import HAPPENINGS_OF_LEADERSHIP
from ..plans.plan import BAD
from .client import Client, Controller

if TYPE_CHECKING:
    from ..afternoon import Afternoon
    from ..masters.master import Master
    from ..world.world import World

__all__ = ["HAPPENINGS", "command", "push_settings"]


def command(afternoon: Afternoon, signum: int, chance: Random) -> None:
    """Send a signal to a master, more often to the older one of two."""
    masters = afternoon.masters()
    if masters:
        master = masters[0] if len(masters) == 1 or chance.random() < 0.7 else masters[-1]
        _tell(afternoon, signum, master)


def _tell(afternoon: Afternoon, signum: int, master: Master) -> None:
    if master.supervisor is not None:
        afternoon.world.tell("user", f"sends {signal.Signals(signum).name} to {master.name}")
        afternoon.world.commands += 1
        afternoon.world.count("command", signal.Signals(signum).name)
        master.take_signal(signum)


def _sends(signum: int) -> Callable[[Afternoon, Random], None]:
    def send(afternoon: Afternoon, chance: Random) -> None:
        command(afternoon, signum, chance)

    return send


def _sends_to_new(signum: int) -> Callable[[Afternoon, Random], None]:
    def send(afternoon: Afternoon, chance: Random) -> None:
        master = afternoon.masters()[-1] if len(afternoon.masters()) > 1 else None
        if master is not None and master.supervisor is not None:
            _tell(afternoon, signum, master)

    return send


def _come(afternoon: Afternoon, chance: Random) -> None:
    """A caller comes, makes some calls, and may go again."""
    world = afternoon.world
    client = Client(world, afternoon.paths["service"])
    for _ in range(chance.randrange(0, 6)):
        world.after(chance.random() * chance.choice((0.5, 30.0)), client.call)
    if chance.random() < 0.3:
        world.after(chance.random() * 40.0, client.hang_up)
    own = afternoon.plan.chance(client.name)
    if own.random() < 0.3:
        for _ in range(own.randrange(1, 4)):
            world.after(own.random() * own.choice((0.5, 30.0)), client.cancel)


def _pids_of_workers(world: World) -> list[int]:
    return [0, *(process.pid for process in world.of_noun["worker"].values())]


def _control(afternoon: Afternoon, chance: Random) -> None:
    """Somebody asks at the control socket."""
    world = afternoon.world
    method = chance.choice(("status", "scale", "scale", "reload", "rebalance", "upgrade", "rpc.ping", "none"))
    params = [chance.choice((1, 2, 4, "+1", "-1", "x"))] if method == "scale" else []
    if method == "reload":
        _choose_configuration(afternoon, chance)
        params = chance.choice(([], [{"all": True}], [{"all": True}], [{"plan": True}]))
    elif method == "status":
        method = chance.choice(("status", "worker.calls", "worker.stack", "queue.list"))
        params = [chance.choice(_pids_of_workers(world))] if method == "worker.stack" else []
    world.commands += 1
    controller = Controller(world, afternoon.paths["control"], method, params)
    if chance.random() < 0.1:
        world.after(chance.random() * 5.0, controller.hang_up)


def _control_plugin(afternoon: Afternoon, chance: Random) -> None:
    """Somebody asks for something that concerns one plugin."""
    if not afternoon.plan.plugins:
        return
    name = chance.choice(afternoon.plan.plugins).name
    method = chance.choice(("start", "stop", "stop", "restart", "restart", "tail", "scale"))
    params = [name, chance.choice((1, 2, "+1", "-1"))] if method == "scale" else [name]
    afternoon.world.commands += 1
    method = method if method == "scale" else f"plugin.{method}"
    Controller(afternoon.world, afternoon.paths["control"], method, params)


def _control_pool(afternoon: Afternoon, chance: Random) -> None:
    """Somebody asks for something that concerns a pool."""
    if afternoon.plan.pools:
        name = chance.choice(afternoon.plan.pools).name
        method, params = chance.choice((("pool.list", []), ("scale", [name, chance.choice((1, 2, 3, "+1", "-1"))])))
        afternoon.world.commands += 1
        Controller(afternoon.world, afternoon.paths["control"], method, params)


def _kill_of(noun: str) -> Callable[[Afternoon, Random], None]:
    def kill(afternoon: Afternoon, chance: Random) -> None:
        processes = list(afternoon.world.of_noun[noun].values())
        if processes:
            process = chance.choice(processes)
            afternoon.world.tell("fate", f"kills {process.name}")
            process.end(signum=signal.SIGKILL)

    return kill


def _fail_plugin(afternoon: Afternoon, chance: Random) -> None:
    """A process of a plugin crashes, one of the older master if there are two."""
    processes = list(afternoon.world.of_noun["plugin"].values())
    if processes:
        afternoon.world.tell("fate", f"lets {processes[0].name} crash")
        processes[0].end(signum=signal.SIGSEGV)


def push_settings(afternoon: Afternoon, number: int) -> None:
    """Somebody sets a value of the service, on which the workers vote."""
    Controller(afternoon.world, afternoon.paths["control"], "config.set", [{"settings.price": str(number)}])


def _reload(afternoon: Afternoon, chance: Random) -> None:
    _choose_configuration(afternoon, chance)
    command(afternoon, signal.SIGHUP, chance)


def _choose_configuration(afternoon: Afternoon, chance: Random) -> None:
    flags = afternoon.flags
    flags["number_workers"] = str(chance.choice((1, 2, 3)))
    flags["proc_name"] = BAD if chance.random() < 0.3 else "good"
    flags["max_depth"] = "nonsense" if chance.random() < 0.1 else "100"
    if afternoon.plan.options["crash_safe"] == "true":
        flags["crash_safe"] = chance.choice(("true", "true", "false"))


def _kill_worker(afternoon: Afternoon, chance: Random) -> None:
    workers = afternoon.workers()
    if workers:
        worker = chance.choice(workers)
        afternoon.world.tell("fate", f"kills {worker.name}")
        afternoon.world.count("fault", "worker killed")
        worker.end(signum=chance.choice((signal.SIGKILL, signal.SIGSEGV)))


def _hang_worker(afternoon: Afternoon, chance: Random) -> None:
    workers = afternoon.workers()
    if workers:
        afternoon.world.count("fault", "worker hangs")
        chance.choice(workers).hang(chance.choice((2.0, 40.0)) * chance.random())


def _term_worker(afternoon: Afternoon, chance: Random) -> None:
    workers = afternoon.workers()
    if workers:
        chance.choice(workers).take_signal(signal.SIGTERM)


def _recycle_worker(afternoon: Afternoon, chance: Random) -> None:
    workers = afternoon.workers()
    if workers:
        chance.choice(workers).ask_to_retire("max_requests")


def _stop_master(afternoon: Afternoon, chance: Random) -> None:
    """A master is not scheduled for a while."""
    masters, world = afternoon.masters(), afternoon.world
    if masters:
        _stand_still(world, chance.choice(masters), chance.choice((0.2, 12.0)) * chance.random())


def _stand_still(world: World, master: Master, seconds: float) -> None:
    master.resumes_at = world.now + seconds
    world.count("fault", "master stands still")
    world.tell("fate", f"stops {master.name} for {seconds:.1f} seconds")


def _hold_old_master(afternoon: Afternoon, chance: Random) -> None:
    """The older of two masters is not scheduled for longer than an upgrade takes."""
    masters = afternoon.masters()
    if len(masters) > 1:
        _stand_still(afternoon.world, masters[0], 5.0 + 7.0 * chance.random())


def _kill_master(afternoon: Afternoon, chance: Random) -> None:
    """Kill one of the two masters of an upgrade, or, seldom, the only one."""
    masters, world = afternoon.masters(), afternoon.world
    if len(masters) > 1 or (masters and chance.random() < 0.02):
        master = chance.choice(masters)
        world.masters_were_killed = True
        world.tell("fate", f"kills {master.name}")
        world.count("fault", "one of two masters killed" if len(masters) > 1 else "master killed")
        master.end(signum=signal.SIGKILL)


def _fail_forks(afternoon: Afternoon, chance: Random) -> None:
    seconds = 0.1 + 5.0 * chance.random()
    afternoon.world.forks_fail_until = afternoon.world.now + seconds
    afternoon.world.tell("fate", f"lets no process be forked for {seconds:.1f} seconds")


def _fill_table(afternoon: Afternoon, chance: Random) -> None:
    """Masters may open no more descriptors for a while."""
    scarcity, seconds = afternoon.world.scarcity, 0.01 + chance.choice((0.3, 8.0)) * chance.random()
    scarcity.table_is_full_until, scarcity.room = afternoon.world.now + seconds, chance.choice((0, 0, 1, 2, 5, 30))
    afternoon.world.count("fault", "table of descriptors is full")
    afternoon.world.tell("fate", f"lets masters open {scarcity.room} more descriptors for {seconds:.1f} seconds")


def _fill_disk(afternoon: Afternoon, chance: Random) -> None:
    """Masters can write nothing for a while."""
    seconds = 0.1 + 8.0 * chance.random()
    afternoon.world.scarcity.disk_is_full_until = afternoon.world.now + seconds
    afternoon.world.count("fault", "disk is full")
    afternoon.world.tell("fate", f"fills the disk for {seconds:.1f} seconds")


def _remove_path(afternoon: Afternoon, chance: Random) -> None:
    """Somebody clears a folder."""
    world, paths = afternoon.world, afternoon.paths
    name = chance.choice(list(paths))
    if os.path.exists(paths[name]):
        os.unlink(paths[name])
        world.removed.add(paths[name])
        for client in world.clients.values() if name == "service" else ():
            if not client.is_accepted:  # nobody may hold the old socket when the path leads to a new one
                world.excuse(client.number, "it waits at a path that was removed")
        for watch in world.watches:
            watch.tell()
        world.tell("user", f"removes the path of {name}")


HAPPENINGS: dict[str, Callable[[Afternoon, Random], None]] = {
    "kill a worker": _kill_worker,
    "hang a worker": _hang_worker,
    "TERM to a worker": _term_worker,
    "recycle a worker": _recycle_worker,
    "stop a master for a while": _stop_master,
    "hold the old master": _hold_old_master,
    "kill a master": _kill_master,
    "fail forks": _fail_forks,
    "fill the table of descriptors": _fill_table,
    "fill the disk": _fill_disk,
    "remove a path": _remove_path,
    "come": _come,
    "control": _control,
    "control a plugin": _control_plugin,
    "control a pool": _control_pool,
    "kill a task process": _kill_of("task"),
    "kill the dispatcher": _kill_of("dispatcher"),
    "kill the coordinator": _kill_of("coordinator"),
    **HAPPENINGS_OF_LEADERSHIP,
    "kill the keeper": _kill_of("keeper"),
    "kill the page": _kill_of("web"),
    "fail a plugin": _fail_plugin,
    "reload": _reload,
    **{name: _sends(signal.Signals[f"SIG{name}"]) for name in ("TTIN", "TTOU", "USR2", "WINCH", "USR1", "CONT")},
    **{name: _sends(signal.Signals[f"SIG{name}"]) for name in ("TERM", "INT", "QUIT")},
    **{
        f"{name} to the new master": _sends_to_new(signal.Signals[f"SIG{name}"])
        for name in ("TERM", "INT", "TTIN", "USR2")
    },
}
