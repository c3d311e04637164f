"""A plugin's command is a program that systemd could have started."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.ipc.messages import BootFailed
from tests.plugin.born import born

LOOK = """
import json, os, signal, sys
names = ("LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "OWN")
signals = [each for each in signal.valid_signals() if signal.getsignal(each) == signal.SIG_IGN]
print(json.dumps({
    "descriptors": [n for n in sorted(map(int, os.listdir("/proc/self/fd"))) if os.path.exists(f"/proc/self/fd/{n}")],
    "variables": {name: os.environ[name] for name in names if name in os.environ},
    "is it": [os.environ.get(name) == str(os.getpid()) for name in ("LISTEN_PID", "WATCHDOG_PID")],
    "blocking": [os.get_blocking(n) for n in range(3, 3 + int(os.environ.get("LISTEN_FDS", 0)))],
    "status": [line for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigIgn"))],
    "stdin": os.readlink("/proc/self/fd/0"),
    "nice": os.nice(0),
}))
"""


def program(text: str) -> tuple[str, ...]:
    """A command that runs ``text`` in Python, which ignores two signals."""
    return (sys.executable, "-c", text)


def test_it_inherits_what_it_should_and_nothing_more() -> None:
    """Its own listeners from 3 on, and their variables."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        chosen = PluginOptions(command=program(LOOK), env={"OWN": "é%"}, timeout=2.5, nice=os.nice(0) + 1)
        with born(chosen, listeners=[two, one], names=["web-1", "web-2"], notify="@somewhere") as child:
            assert child.ended() == 0
            told = json.loads(child.output)
    assert told["descriptors"] == [0, 1, 2, 3, 4]
    assert told["variables"] == {
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "web-1:web-2",
        "NOTIFY_SOCKET": "@somewhere",
        "WATCHDOG_USEC": "2500000",
        "OWN": "é%",
    }
    assert told["is it"] == [True, True]
    assert told["blocking"] == [True, True]
    pythons = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert [int(line.split()[1], 16) & ~pythons for line in told["status"]] == [0, 0]
    assert told["stdin"] == os.devnull
    assert told["nice"] == os.nice(0) + 1


def test_without_listeners_and_notices_it_has_no_variables_of_theirs() -> None:
    """Not even the master's own."""
    with born(PluginOptions(command=program(LOOK))) as child:
        assert child.ended() == 0
        told = json.loads(child.output)
    assert (told["descriptors"], told["variables"], told["is it"]) == ([0, 1, 2], {}, [False, False])


@pytest.mark.parametrize("listeners", [0, 30])
def test_one_that_cannot_be_run_is_told(tmp_path: Path, listeners: int) -> None:
    """As the plugin's fault, also where the listeners lie over the way to the master."""
    script = tmp_path / "script"
    script.write_text("echo no\n")
    with socket.create_server(("127.0.0.1", 0)) as one:
        for name, reason in (
            ("nothing-such", "No such file or directory"),
            (str(tmp_path), "Permission denied"),
            (str(script), "Permission denied"),
        ):
            chosen = PluginOptions(command=(name,))
            with born(chosen, listeners=[one] * listeners, names=["x"] * listeners) as child:
                assert child.ended() == 3
                assert child.messages() == [BootFailed("service", f"cannot run the command {name!r}: {reason}")]
    script.chmod(0o755)
    with born(PluginOptions(command=(str(script),))) as child:
        assert child.ended() == 3
        [told] = child.messages()
    assert told.text.endswith("Exec format error; a script begins with a line such as #!/bin/sh")


def test_its_environment_cannot_hide_whose_it_is() -> None:
    """The master finds what it has started by the mark."""
    options = PluginOptions(
        command=("sh", "-c", "echo $RPCCLUSTER_GROUP$OWN"), env={"RPCCLUSTER_GROUP": "x", "OWN": "!"}
    )
    with born(options) as child:
        assert child.ended() == 0
        assert child.output.endswith("!\n") and "x" not in child.output


def test_it_is_looked_up_on_the_path_that_it_is_given(tmp_path: Path) -> None:
    """By `env.PATH`, where there is one."""
    script = tmp_path / "own-program"
    script.write_text("#!/bin/sh\necho $0\n")
    script.chmod(0o755)
    with born(PluginOptions(command=("own-program",), env={"PATH": f"{tmp_path}:/bin:/usr/bin"})) as child:
        assert (child.ended(), child.output) == (0, f"{script}\n")
