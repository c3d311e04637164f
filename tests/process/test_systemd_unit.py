"""etc/rpccluster.service and etc/rpccluster.socket, as shipped: systemd finds no fault, and they do what they say."""

from __future__ import annotations

import configparser
import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_systemd import MadeUpSystemd
from programs import needed

from rpccluster import Client
from rpccluster.testing import call_once, is_alive, wait_until

ETC = Path(__file__).resolve().parents[2] / "etc"
PROGRAMS = Path(sys.executable).parent

SHOP = """
class Shop:
    def count(self, name):
        return len(name)
"""


def read(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(ETC / name)
    return parser


class Machine:
    """A folder for /etc and /run, and a systemd that runs the lines of the unit with them."""

    def __init__(self, folder: Path, systemd: MadeUpSystemd) -> None:
        self.systemd = systemd
        self.folders = {"%E": folder / "etc", "%t": folder / "run"}
        for each in self.folders.values():
            (each / "rpccluster").mkdir(parents=True)
        self.config = folder / "etc" / "rpccluster" / "cluster.ini"
        self.config.write_text(f"[cluster]\nservice = shop:Shop\npythonpath = {folder}\nnumber_workers = 1\n")
        (folder / "shop.py").write_text(SHOP)
        self.log = folder / "journal"
        self.environment = {"PATH": f"{PROGRAMS}{os.pathsep}/usr/bin{os.pathsep}/bin", "LANG": "C.UTF-8"}
        self.service, self.socket = read("rpccluster.service"), read("rpccluster.socket")

    def command(self, key: str) -> list[str]:
        line = self.service["Service"][key]
        for specifier, folder in self.folders.items():
            line = line.replace(specifier, str(folder))
        return shlex.split(line)

    def start(self) -> subprocess.Popen[str]:
        with open(self.log, "ab") as log:
            return self.systemd.launch(self.command("ExecStart"), self.environment, cwd="/", stdout=log, stderr=log)

    def reload(self) -> subprocess.CompletedProcess[str]:
        return self.run(*self.command("ExecReload"))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=self.environment, cwd="/", capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    systemd = MadeUpSystemd(tmp_path)
    made = Machine(tmp_path, systemd)
    yield made
    systemd.close()
    if systemd.main_pid and is_alive(systemd.main_pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(systemd.main_pid, signal.SIGKILL)


@pytest.fixture
def _tools_of_systemd() -> None:
    """The programs of the package systemd."""
    for program in ("systemd-analyze", "systemd-socket-activate"):
        needed(program)


@pytest.mark.usefixtures("_tools_of_systemd")
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    """The program has its whole path here: systemd looks in its own folders, and it is in none of them."""
    for name in ("rpccluster.service", "rpccluster.socket"):
        text = (ETC / name).read_text().replace("=rpccluster -", f"={PROGRAMS}/rpccluster -")
        (tmp_path / name).write_text(text)
    for name in ("rpccluster.service", "rpccluster.socket"):
        done = subprocess.run(
            ["systemd-analyze", "--man=no", "verify", str(tmp_path / name)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_lives_as_shipped(machine: Machine) -> None:
    """Started, called, reloaded, refused, upgraded, stopped: by its own lines, with the access that it gives."""
    service, systemd = machine.service["Service"], machine.systemd
    assert (service["Type"], service["NotifyAccess"], service["KillMode"]) == ("notify", "main", "mixed")
    systemd.environment["WATCHDOG_USEC"] = str(int(service["WatchdogSec"]) * 1_000_000)
    address = systemd.listen(machine.socket["Socket"]["FileDescriptorName"])
    process = machine.start()
    assert systemd.hear_main("READY")["STATUS"] == f"Serving at {address} (generation 1)"
    assert call_once(address, "count", "apple") == 5

    assert machine.reload().returncode == 0
    systemd.hear_main("RELOADING")
    assert systemd.hear_main("READY")["STATUS"].endswith("(generation 2)")
    text = machine.config.read_text()
    machine.config.write_text(text + "backlog = many\n")
    refused = machine.reload()
    assert (refused.returncode, "backlog" in refused.stderr) == (1, True)
    systemd.hear_main("RELOADING")
    assert systemd.hear_main("READY")["STATUS"].startswith("Reload failed: ")
    machine.config.write_text(text)

    reload = machine.command("ExecReload")
    assert machine.run(*reload[: reload.index("reload")], "upgrade").returncode == 0
    while systemd.main_pid == process.pid:
        systemd.hear_main("MAINPID")
    assert process.wait(60) == 0
    assert call_once(address, "count", "apple") == 5
    os.kill(systemd.main_pid, signal.SIGTERM)
    systemd.hear_main("STOPPING")
    wait_until(lambda: not is_alive(systemd.main_pid))
    assert "[ERROR]" not in machine.log.read_text().replace("[ERROR] Reload failed", "")
    assert not list(machine.folders["%t"].rglob("*.sock"))


@pytest.mark.usefixtures("_tools_of_systemd")
def test_systemds_own_tool_starts_it(tmp_path: Path) -> None:
    """At the first caller, who is answered."""
    (tmp_path / "shop.py").write_text(SHOP)
    address, control = f"{tmp_path}/it.sock", f"{tmp_path}/control.sock"
    program = [f"{PROGRAMS}/rpccluster", "--bind", "fd://web", "--control", control, "-w", "1", "shop:Shop"]
    activate = ["systemd-socket-activate", "--listen", address, "--fdname", "web", *program]
    process = subprocess.Popen(activate, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.exists(address))
        with Client(f"unix://{address}", timeout=60) as client:
            assert client.call("count", "apple") == 5
        with Client(f"unix://{control}") as master:
            assert master.call("status")["master"]["listeners"] == [f"unix://{address}"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert os.path.exists(address)
    finally:
        process.kill()
        process.wait()


def test_there_is_more_time_than_calls_have(machine: Machine) -> None:
    """systemd kills what has not ended by then; graceful_timeout is 30 by default, and 3 seconds are for the end."""
    assert int(machine.service["Service"]["TimeoutStopSec"]) > 33
    assert machine.service["Unit"]["Requires"] == "rpccluster.socket"
    assert machine.service["Install"]["Also"] == "rpccluster.socket"
