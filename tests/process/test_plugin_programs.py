"""Real programs as plugins: scripts, servers, and those that misbehave. Nothing else in the cluster is touched."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from code_blocks import code_blocks

from rpccluster.testing import RunningCluster, is_alive, title_of, wait_until

PLUGINS_MD = Path(__file__).resolve().parents[2] / "docs" / "plugins.md"
FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))

SCRIPT = """#!/bin/sh
trap 'echo ending; exit 0' TERM
echo "begun by $LOGGER with $#"
while :; do sleep 0.1; done
"""
LOOKS = """
import sys, time
def run():
    print("gevent" in sys.modules)
    time.sleep(600)
"""
NOTIFIES = """
import os, socket, sys, time
def tell(what):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
        notice.sendto(what, "\\0" + address[1:] if address[0] == "@" else address)
print("watched for", os.environ["WATCHDOG_USEC"], flush=True)
while not os.path.exists("go"):
    time.sleep(0.02)
tell(b"READY=1\\nSTATUS=serving")
while not os.path.exists("hang"):
    tell(b"WATCHDOG=1")
    time.sleep(0.05)
time.sleep(600)
"""


@pytest.fixture
def with_plugin(make_cluster: Any) -> Any:
    """Starts a cluster with one worker and the plugin ``it``."""

    def start(files: dict[str, str] | None = None, **options: object) -> RunningCluster:
        made: RunningCluster = make_cluster(number_workers=1)
        for name, text in (files or {}).items():
            (made.folder / name).write_text(text)
            (made.folder / name).chmod(0o755)
        made.write_section("plugin:it", options)
        return made.start()

    return start


def it(cluster: RunningCluster) -> dict[str, Any]:
    """The row of the plugin's first process."""
    row: dict[str, Any] = cluster.group("plugin:it")["processes"][0]
    return row


def test_a_shell_script(with_plugin: Any) -> None:
    """Its lines are in the log with name and pid, and it hears of its end."""
    cluster = with_plugin({"script": SCRIPT}, command="./script a 'b c'", **{"env.LOGGER": "me"})
    pid = cluster.wait_group("plugin:it")["processes"][0]["pid"]
    cluster.wait_log(f"[{pid}] [it] begun by me with 2")
    cluster.signal(signal.SIGTERM)
    assert cluster.wait() == 0
    assert f"[{pid}] [it] ending" in cluster.log_text()
    assert not is_alive(pid)


def test_a_program_that_speaks_sd_notify(with_plugin: Any) -> None:
    """It is ready when it says so, and killed when it gives no more signs of life."""
    program = f"{sys.executable} notifies.py"
    cluster = with_plugin({"notifies.py": NOTIFIES}, command=program, ready="notify", timeout=2)
    cluster.wait_log("[it] watched for 2000000")
    assert it(cluster)["state"] == "booting"
    (cluster.folder / "go").touch()
    pid = cluster.wait_group("plugin:it")["processes"][0]["pid"]
    (cluster.folder / "hang").touch()
    wait_until(lambda: not is_alive(pid), 20)
    (cluster.folder / "hang").unlink()
    wait_until(lambda: it(cluster)["pid"] not in (None, pid) and it(cluster)["state"] == "ready", 20)


def test_pythons_web_server_on_a_listener_of_the_masters(with_plugin: Any) -> None:
    """By the wrapper of docs/plugins.md; while it is started again a caller waits."""
    wrapper = next(block.text for block in code_blocks(PLUGINS_MD) if block.name == "serve_folder.py")
    files = {"serve_folder.py": wrapper, "page.txt": "as it is"}
    cluster = with_plugin(files, command=f"{sys.executable} serve_folder.py", bind="tcp://127.0.0.1:0")
    group = cluster.wait_group("plugin:it")
    (address,) = group["listeners"]
    url = f"http://{address.partition('://')[2]}/page.txt"
    pid = 0
    for _ in range(3):
        pid = wait_until(lambda old=pid: it(cluster)["pid"] not in (None, old) and it(cluster)["pid"], 20)
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.read() == b"as it is"
        os.kill(pid, signal.SIGKILL)
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.read() == b"as it is"


# -- bad input


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"run": "nothing_such:run"}, "'nothing_such:run': ModuleNotFoundError: No module named 'nothing_such'"),
        ({"run": "jobs:nothing"}, "'jobs:nothing': AttributeError: module 'jobs' has no attribute 'nothing'"),
        ({"run": "jobs:two"}, "'jobs:two' takes 2 parameters besides plugin (one, other), expected one at most"),
        ({"command": "./script"}, "cannot run the command './script': No such file or directory: what its first line"),
        ({"command": "./jobs.py"}, "Exec format error; a script begins with a line such as #!/bin/sh"),
    ],
)
def test_one_that_cannot_boot_says_why(with_plugin: Any, options: dict[str, object], fault: str) -> None:
    """In the log and in `plugin list`; the workers serve."""
    files = {"jobs.py": "def two(one, other, plugin): pass\n", "script": "#!/nowhere/sh\n"}
    cluster = with_plugin(files, **options)
    cluster.wait_log(fault)
    waiting = cluster.wait_group("plugin:it", "waiting")
    assert fault in waiting["reason"]
    with cluster.client() as client:
        assert client.call("sum", 1, 2) == 3


def test_binary_output_and_a_line_without_end(with_plugin: Any) -> None:
    """Are escaped and cut; the master does not grow with them."""
    module = f"""
import os, time
def run():
    os.write(1, bytes(range(256)) + b"\\n")
    for _ in range({1600 if FULL_SCALE else 160}):
        os.write(2, b"x" * 65536)
    os.write(1, b"\\nlast\\n")
    time.sleep(600)
"""
    cluster = with_plugin({"jobs.py": module}, run="jobs:run")
    before = resident(cluster.master_pid)
    cluster.wait_log("[it] last", 100)
    assert resident(cluster.master_pid) < before + 10_000_000
    log = cluster.log_text()
    assert "\\x00\\x01\\x02" in log and "\\xff" in log
    assert log.count("x… (cut)") == 1
    assert cluster.log.stat().st_size < 100_000
    with cluster.client() as client:
        assert client.call("sum", 1, 2) == 3


def resident(pid: int) -> int:
    """Resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize(
    "options",
    [
        {"run": "jobs:run"},
        {"command": f"{sys.executable} -c 'import jobs; jobs.run()'"},
    ],
    ids=["function", "command"],
)
def test_one_that_closes_its_output_goes_on(with_plugin: Any, options: dict[str, object]) -> None:
    """It is not taken for one that has ended, and is stopped as any other."""
    module = """
import os, time
def run():
    os.close(1)
    os.close(2)
    open("closed", "w").close()
    time.sleep(600)
"""
    cluster = with_plugin({"jobs.py": module}, **options)
    wait_until((cluster.folder / "closed").exists, 20)
    pid = cluster.wait_group("plugin:it")["processes"][0]["pid"]
    assert cluster.run("status").returncode == 0
    assert it(cluster)["pid"] == pid and it(cluster)["restarts"] == 0
    cluster.signal(signal.SIGTERM)
    assert cluster.wait() == 0
    assert not is_alive(pid)


def test_one_that_puts_itself_into_the_background_is_not_left_there(with_plugin: Any) -> None:
    """What a double fork leaves is ended with its leader, though it has a session of its own."""
    module = """
import os, time
def run():
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    with open("pids", "a") as pids:
        print(os.getpid(), file=pids, flush=True)
    time.sleep(600)
"""
    cluster = with_plugin({"jobs.py": module}, run="jobs:run", restart="never")
    cluster.wait_group("plugin:it", "finished")
    pids = cluster.folder / "pids"
    wait_until(lambda: not pids.exists() or not any(map(is_alive, map(int, pids.read_text().split()))), 20)


def test_what_it_inherits(make_cluster: Any) -> None:
    """A command: its standard descriptors alone. A function: no file and no listener of the cluster, no gevent."""
    cluster: RunningCluster = make_cluster(number_workers=1, access_log="on")
    log = cluster.folder / "own.log"
    cluster.write_config(log_file=log)
    cluster.write_module("jobs", LOOKS)
    cluster.write_section("plugin:it", {"run": "jobs:run"})
    cluster.write_section("plugin:other", {"command": "sleep 600"})
    cluster.start()
    function, command = (cluster.wait_group(f"plugin:{name}")["processes"][0]["pid"] for name in ("it", "other"))
    wait_until(lambda: open_in(command).keys() == {0, 1, 2})  # the program has its libraries by then
    assert open_in(command)[0] == os.devnull
    wait_until(lambda: "[it] False" in log.read_text())
    targets = list(wait_until(lambda: open_in(function)).values())
    assert not [target for target in targets if target.endswith(".log")]
    assert len([target for target in targets if target.startswith("socket:")]) == 1  # the channel


def open_in(pid: int) -> dict[int, str]:
    """Where the descriptors of a process lead."""
    folder = Path(f"/proc/{pid}/fd")
    return {int(path.name): os.readlink(path) for path in folder.iterdir()}


def test_its_title_says_which_it_is(with_plugin: Any) -> None:
    """As a worker's does."""
    cluster = with_plugin({"jobs.py": "import time\ndef run():\n    time.sleep(600)\n"}, run="jobs:run")
    pid = cluster.wait_group("plugin:it")["processes"][0]["pid"]
    wait_until(lambda: title_of(pid) == "rpccluster: plugin it [rpccluster]")


RELOADS = """
trap 'echo told' USR1
echo begun
while true; do sleep 0.1; done
"""


def test_a_command_is_told_of_new_settings_by_its_signal(with_plugin: Any) -> None:
    """After a push, and after a reload that changes them; it stays the same process."""
    cluster = with_plugin({"loop.sh": RELOADS}, command="sh loop.sh", reload_signal="USR1")
    pid = cluster.wait_group("plugin:it")["processes"][0]["pid"]
    cluster.wait_log("[it] begun")  # it minds its signal from then on
    cluster.control().call("config.set", {"settings.price": "2"})
    cluster.wait_log("[it] told")
    cluster.write_section("settings", {"price": "3"})
    cluster.control().call("reload")
    wait_until(lambda: cluster.log_text().count("[it] told") == 2)
    assert it(cluster)["pid"] == pid
