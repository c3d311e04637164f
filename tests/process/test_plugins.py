"""Plugins under a real master: started, kept, ordered, stopped, shown, and what they write."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from patience import FULL_SCALE, within

from rpccluster.errors import RemoteError
from rpccluster.testing import RunningCluster, is_alive, title_of, wait_until

MakeCluster = Callable[..., RunningCluster]

JOBS = """
import os
import signal
import sys
import time


def wait(args=None):
    print("called with", args)
    time.sleep(1000)


def returns():
    print("run", os.getpid())


def crash():
    raise ValueError("it cannot be")


def spin():
    while True:
        pass


def grows():
    kept = bytearray(100 << 20)
    time.sleep(1000)


def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    while True:
        time.sleep(1000)


def slowly_ready(plugin):
    while not os.path.exists("may_be_ready"):
        time.sleep(0.01)
    plugin.ready()
    plugin.stopping.wait()


def flood():
    piece = b"x" * 65536
    while True:
        os.write(1, piece)
"""


@pytest.fixture
def made(make_cluster: MakeCluster) -> RunningCluster:
    """A cluster of one worker that has not started, with the module jobs."""
    cluster = make_cluster(number_workers=1)
    cluster.write_module("jobs", JOBS)
    (cluster.folder / "bad").write_text("#!/no/such/interpreter\n")
    (cluster.folder / "bad").chmod(0o755)
    return cluster


def write_plugin(cluster: RunningCluster, name: str, **options: object) -> None:
    """Write the section of a plugin into the configuration of a cluster."""
    cluster.write_section(f"plugin:{name}", options)


def plugin_pids(cluster: RunningCluster, name: str) -> list[int]:
    """Return the pids of the ready processes of a plugin, by slot."""
    processes = cluster.group(f"plugin:{name}").get("processes", [])
    return [process["pid"] for process in processes if process["state"] == "ready"]


def ready(cluster: RunningCluster, name: str) -> int:
    """Wait until the one process of a plugin is ready, and return its pid."""
    return wait_until(lambda: plugin_pids(cluster, name), what=f"{name} is ready")[0]


def first(cluster: RunningCluster, name: str) -> dict[str, object]:
    """Return the first process of a plugin in ``status``."""
    process: dict[str, object] = cluster.group(f"plugin:{name}")["processes"][0]
    return process


def test_a_function_and_a_command_are_started_kept_shown_and_stopped(made: RunningCluster) -> None:
    """Each has a process with its title; the log has what it writes, with pid and name; nothing is left at the end."""
    write_plugin(made, "dict", run="jobs:wait", args='{"a": 1}')
    write_plugin(made, "shell", command="sh -c 'echo it runs; exec sleep 1000'")
    made.start()
    function, command = ready(made, "dict"), ready(made, "shell")
    wait_until(lambda: title_of(function) == "rpccluster: plugin dict [rpccluster]")
    wait_until(lambda: title_of(command) == "sleep 1000")  # the shell has become it
    made.wait_log(f"[{function}] [dict] called with {{'a': 1}}")
    made.wait_log(f"[{command}] [shell] it runs")
    os.kill(function, signal.SIGKILL)
    os.kill(command, signal.SIGKILL)
    wait_until(lambda: plugin_pids(made, "dict") not in ([], [function]))
    wait_until(lambda: plugin_pids(made, "shell") not in ([], [command]))
    assert first(made, "dict")["restarts"] == 1
    shown = made.group("plugin:dict")
    assert (shown["kind"], shown["state"], shown["wanted"]) == ("plugin", "ready", 1)
    present = [*plugin_pids(made, "dict"), *plugin_pids(made, "shell")]
    made.signal(signal.SIGTERM)
    assert made.wait() == 0
    assert not any(is_alive(pid) for pid in present)
    log = made.log_text()
    assert log.index("Worker exiting") < log.index("Retiring plugin dict") < log.rindex("Plugin dict exiting")


def test_a_plugin_that_returns_comes_back_and_one_that_crashes_waits(made: RunningCluster) -> None:
    """With the pause and the reason; a function's traceback is in the log."""
    write_plugin(made, "returns", run="jobs:returns", restart_delay=0.1)
    write_plugin(made, "crash", run="jobs:crash", restart_delay=60, restart_delay_max=60)
    made.start()
    wait_until(lambda: first(made, "returns")["restarts"] >= 5)  # type: ignore[operator]
    wait_until(lambda: first(made, "crash")["state"] == "waiting")
    shown = first(made, "crash")
    assert shown["reason"] == "exit code 1"
    assert 50 < float(str(shown["retry_in_seconds"])) <= 60
    made.wait_log("[crash] ValueError: it cannot be")


@pytest.mark.parametrize(
    ("options", "state", "reason"),
    [
        ({"command": "true", "restart": "on-failure"}, "finished", "exit code 0"),
        ({"command": "false", "restart": "never"}, "finished", "exit code 1"),
        ({"run": "jobs:returns", "restart": "never"}, "finished", "exit code 0"),
        ({"run": "jobs:wait", "autostart": "false"}, "stopped", "autostart = false"),
        ({"command": "./bad", "restart_delay": 60}, "waiting", "cannot run the command"),
        ({"run": "no_module:run", "restart_delay": 60}, "waiting", "cannot load 'no_module:run'"),
    ],
)
def test_what_does_not_run_says_why(made: RunningCluster, options: dict[str, object], state: str, reason: str) -> None:
    """And the workers serve all the same."""
    write_plugin(made, "it", **options)
    made.start()
    wait_until(lambda: first(made, "it")["state"] == state)
    assert reason in str(first(made, "it")["reason"])
    assert made.group("plugin:it")["state"] == state
    with made.client() as client:
        assert client.call("sum", 1, 2) == 3


def test_one_comes_after_another_when_that_is_ready_and_stops_before_it(made: RunningCluster) -> None:
    """Not when it was started; and it stays when the other is lost and comes back."""
    write_plugin(made, "later", run="jobs:wait", after="earlier")
    write_plugin(made, "earlier", run="jobs:slowly_ready", ready="notify")
    made.start()
    wait_until(lambda: first(made, "earlier")["state"] == "booting")
    shown = first(made, "later")
    assert (shown["state"], shown["reason"]) == ("waiting", "after plugin:earlier")
    (made.folder / "may_be_ready").write_text("")
    later, earlier = ready(made, "later"), ready(made, "earlier")
    os.kill(earlier, signal.SIGKILL)
    wait_until(lambda: plugin_pids(made, "earlier") not in ([], [earlier]))
    assert plugin_pids(made, "later") == [later]
    made.signal(signal.SIGTERM)
    assert made.wait() == 0
    log = made.log_text()
    assert log.index("Plugin earlier ready") < log.index("Booting plugin later")
    assert log.index("Plugin later exiting") < log.index("Retiring plugin earlier")


def test_a_plugin_that_does_not_get_ready_in_time_has_failed(made: RunningCluster) -> None:
    """It is killed, and counted."""
    write_plugin(made, "slow", run="jobs:slowly_ready", ready="notify", ready_timeout=0.5, restart_delay=60)
    made.start()
    wait_until(lambda: first(made, "slow")["state"] == "waiting")
    assert first(made, "slow")["reason"] == "it was not ready within ready_timeout"


def test_a_command_says_that_it_is_ready(made: RunningCluster) -> None:
    """As it would tell systemd; until then it boots."""
    told = "import os, socket, time\\nwhile not os.path.exists('may_be_ready'): time.sleep(0.01)\\n"
    told += "address = os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1)\\n"
    told += "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', address)\\ntime.sleep(1000)"
    made.write_module("tells", told.replace("\\n", "\n"))
    write_plugin(made, "tells", command="python3 tells.py", ready="notify")
    made.start()
    wait_until(lambda: first(made, "tells")["state"] == "booting")
    (made.folder / "may_be_ready").write_text("")
    ready(made, "tells")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"run": "jobs:spin"}, "in spin"),
        ({"run": "jobs:wait"}, "in wait"),
        ({"command": "sleep 1000"}, "state S (sleeping)"),
    ],
)
def test_a_plugin_without_a_sign_of_life_is_killed_and_the_log_says_where_it_was(
    made: RunningCluster, options: dict[str, object], told: str
) -> None:
    """In Python or in C; a command cannot be asked, and the kernel tells."""
    write_plugin(made, "hangs", timeout=1, **options)
    made.start()
    hung = ready(made, "hangs")
    wait_until(lambda: not is_alive(hung))
    made.wait_log("died: it hung")
    made.wait_log(told)  # at the latest of the next one: the first may not have come to its function in time


def test_a_deaf_plugin_is_killed_after_its_stop_timeout(made: RunningCluster) -> None:
    """Within the time that the whole stop may take."""
    write_plugin(made, "deaf", run="jobs:stubborn", stop_timeout=0.3)
    made.start()
    made.wait_log("[deaf] deaf")
    made.signal(signal.SIGTERM)
    assert made.wait() == 0
    assert "Killing plugin deaf" in made.log_text()
    assert "it did not finish in stop_timeout" in made.log_text()


def test_an_essential_plugin_that_fails_five_times_ends_the_cluster(made: RunningCluster) -> None:
    """As TERM does, with exit code 5 and the reason."""
    write_plugin(made, "vital", run="jobs:crash", essential=True, restart_delay=0.05)
    made.start(are_ready=False)
    assert made.wait() == 5
    assert "plugin vital has failed 5 times within 600 seconds (last: exit code 1)" in made.log_text()


@pytest.mark.skipif(not FULL_SCALE, reason="nothing is replaced for its memory in the first ten seconds")
def test_a_plugin_that_grows_is_replaced(made: RunningCluster) -> None:
    """Beyond max_memory; it is told to end as by a stop."""
    write_plugin(made, "grows", run="jobs:grows", max_memory="60M")
    made.start()
    grown = ready(made, "grows")
    wait_until(lambda: plugin_pids(made, "grows") not in ([], [grown]), 60)
    assert f"Retiring plugin grows (pid: {grown}, slot: 0): max_memory" in made.log_text()
    assert not is_alive(grown)


CRASHING, CRASHES = (50, 20) if FULL_SCALE else (5, 12)


def test_many_that_crash_at_their_start_cost_little(made: RunningCluster) -> None:
    """A few lines of the log each time; at full scale under 2 % of a CPU, and under a line a second of each."""
    pauses = {} if FULL_SCALE else {"restart_delay": 0.01, "restart_delay_max": 0.1}
    for number in range(CRASHING):
        write_plugin(made, f"p{number}", run="jobs:crash", **pauses)
    begun = time.monotonic()
    made.start()

    def crashes() -> list[int]:
        return [made.log_text().count(f"Plugin p{number} (") for number in range(CRASHING)]

    wait_until(lambda: min(crashes()) >= CRASHES, 600)
    seconds = time.monotonic() - begun
    lines = made.log_text().count("\n")
    ticks = sum(map(int, Path(f"/proc/{made.master_pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    shown = wait_until(lambda: next(iter(made.wait_group("plugin:p0", "waiting")["processes"]), None))
    assert shown["reason"] == "exit code 1"
    assert shown["restarts"] >= CRASHES - 1
    assert len(shown["deaths"]) <= 20
    assert lines <= 10 * sum(crashes()) + 100
    if FULL_SCALE:
        assert ticks / os.sysconf("SC_CLK_TCK") < 0.02 * seconds
        assert lines < seconds * CRASHING


def test_a_plugin_that_writes_without_end_holds_nobody_up(made: RunningCluster) -> None:
    """Its lines are cut; calls and status are answered meanwhile."""
    write_plugin(made, "flood", run="jobs:flood")
    made.start()
    ready(made, "flood")
    made.wait_log("… (cut)")
    with made.client() as client:
        for _ in range(100):
            assert client.call("sum", 1, 2) == 3
    assert made.log_text().count("[flood]") == 1


def test_commands_to_a_plugin_are_answered_when_it_is_so(made: RunningCluster) -> None:
    """Stopped, started, restarted and scaled by hand; what it has written can be asked for."""
    write_plugin(made, "it", run="jobs:wait", args="text")
    made.start()
    pid = ready(made, "it")
    with made.control() as control:
        assert control.call("plugin.start", "it") is True
        assert plugin_pids(made, "it") == [pid]
        assert control.call("plugin.restart", "it") is True
        assert not is_alive(pid)
        (pid,) = plugin_pids(made, "it")
        assert control.call("plugin.stop", "it") is True
        assert not is_alive(pid)
        assert (first(made, "it")["state"], first(made, "it")["reason"]) == ("stopped", "by hand")
        assert made.group("plugin:it")["wanted"] == 1
        assert control.call("scale", "it", 2) == {"wanted": 2}
        assert control.call("plugin.start", "it") is True
        assert len(plugin_pids(made, "it")) == 2
        assert control.call("scale", "plugin:it", "-1") == {"wanted": 1}
        assert len(plugin_pids(made, "it")) == 1

        def tail() -> dict[str, Any]:
            told: dict[str, Any] = control.call("plugin.tail", "it", 100)
            return told if any(line.endswith("[it] called with text") for line in told["lines"]) else {}

        told = wait_until(tail)
        assert control.call("plugin.tail", "it", 100, told["next"])["next"] >= told["next"] > 0
        with pytest.raises(RemoteError, match="expected one of it"):
            control.call("plugin.stop", "other")


def test_a_command_that_cannot_be_done_says_why(made: RunningCluster) -> None:
    """A start of what cannot boot."""
    write_plugin(made, "bad", command="./bad", autostart=False)
    made.start()
    with made.control() as control, pytest.raises(RemoteError, match="cannot run the command"):
        control.call("plugin.start", "bad")


def test_all_ends_within_graceful_timeout(made: RunningCluster) -> None:
    """A plugin whose turn comes late has only the rest of it, however long its own time is."""
    made.write_config(graceful_timeout=1)
    write_plugin(made, "first", run="jobs:stubborn", stop_timeout=600)
    write_plugin(made, "last", run="jobs:stubborn", stop_timeout=600, after="first")
    made.start()
    for name in ("first", "last"):
        made.wait_log(f"[{name}] deaf")
    made.signal(signal.SIGTERM)
    assert made.wait(within(10)) == 0


def test_what_was_stopped_by_hand_stays_so_over_an_upgrade(made: RunningCluster) -> None:
    """And what was started by hand runs on; each says so."""
    write_plugin(made, "stopped", run="jobs:wait")
    write_plugin(made, "started", run="jobs:wait", autostart=False)
    made.start()
    ready(made, "stopped")
    with made.control() as control:
        control.call("plugin.stop", "stopped")
        control.call("plugin.start", "started")
        control.call("upgrade")
    made.wait_ready()
    shown = made.wait_group("plugin:stopped", "stopped")
    assert shown["processes"][0]["reason"] == "by hand"
    ready(made, "started")


def test_a_schedule_waits_for_its_time(made: RunningCluster) -> None:
    """And shows how long; at full scale it runs once each minute."""
    write_plugin(made, "daily", run="jobs:returns", schedule="30 2 * * *", timezone="UTC")
    write_plugin(made, "each", run="jobs:returns", schedule="* * * * *")
    made.start()
    shown = made.wait_group("plugin:daily", "waiting")
    assert shown["reason"] == "schedule"
    assert 0 < shown["processes"][0]["retry_in_seconds"] <= 86400
    if FULL_SCALE:
        wait_until(lambda: made.log_text().count("[each] run") == 2, 130)
        wait_until(lambda: first(made, "each")["state"] == "waiting")
        assert float(str(first(made, "each")["retry_in_seconds"])) > 50


def test_a_cluster_of_plugins_alone(made: RunningCluster) -> None:
    """Has no workers, serves its control socket, and starts although one of its plugins cannot boot."""
    made.write_config(service=None, bind=None, number_workers=None)
    write_plugin(made, "good", run="jobs:wait")
    write_plugin(made, "bad", command="./bad")
    made.start(are_ready=False)
    pid = wait_until(lambda: made.try_status() and plugin_pids(made, "good"))[0]
    wait_until(lambda: made.status()["master"]["state"] == "running")
    status = made.status()
    assert (status["workers"], [group["name"] for group in status["groups"]]) == ([], ["plugin:good", "plugin:bad"])
    for signum in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH):
        made.signal(signum)
    made.wait_log("Handling signal: winch")
    wait_until(lambda: made.log_text().count("The cluster has no service, so it has no workers") == 3)
    assert made.status()["master"]["state"] == "running"
    with made.control() as control, pytest.raises(RemoteError, match="found no workers"):
        control.call("scale", 2)
    made.signal(signal.SIGTERM)
    assert made.wait() == 0
    assert not is_alive(pid)
