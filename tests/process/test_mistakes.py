"""What somebody makes wrong who begins, and what is printed: a line or two, which say what to do.

Beside these lines stand only the log's lines of level INFO, and the traceback of the service's own code.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rpccluster.testing import RunningCluster

SECONDS = 60
WITHOUT_ALL_RIGHTS = "setpriv --bounding-set -dac_override,-dac_read_search"  # root heeds modes, too

FILES = {
    "shop.py": "class Shop:\n    def count(self, name):\n        return 3\n",
    "raising.py": "raise ValueError('no database')\n",
    "relative.py": "from . import goods\n\nclass Shop: pass\n",
    "needing.py": "import nosuchlibrary\n\nclass Shop: pass\n",
    "wanting.py": "class Shop:\n    def __init__(self, database): pass\n    def count(self): pass\n",
    "good.ini": "[cluster]\nservice = shop:Shop\n",
    "key.ini": "[cluster]\nservice = shop:Shop\nmax_memmory = 1G\n",
    "section.ini": "[clutser]\nservice = shop:Shop\n",
    "value.ini": "[cluster]\nservice = shop:Shop\ntimeout = soon\n",
    "user.ini": "[cluster]\nservice = shop:Shop\nuser = nobodyy\n",
    "address.ini": "[cluster]\nservice = shop:Shop\nbind = localhost\n",
    "long.ini": f"[cluster]\nservice = shop:Shop\nbind = unix:///tmp/{'x' * 120}\n",
    "pid.ini": "[cluster]\nservice = shop:Shop\npidfile = %(here)s/closed/x.pid\n",
    "pluign.ini": "[pluign:dict]\ncommand = sleep 1\n[cluster]\nservice = shop:Shop\n",
    "comand.ini": "[plugin:dict]\ncomand = sleep 1\nrun = shop:run\n[cluster]\nservice = shop:Shop\n",
    "program.ini": "[plugin:dict]\ncommand = nosuch 1\n[cluster]\nservice = shop:Shop\n",
    "after.ini": "[cluster]\n[plugin:cook]\ncommand = sleep 1\nafter = dcit\n[plugin:dict]\ncommand = sleep 1\n",
    "closed.ini": "[cluster]\nservice = shop:Shop\n",
}


@dataclass(frozen=True)
class Mistake:
    """A command, its exit code, and words that what it prints contains. ``code``: a traceback of the service's follows.

    ``$ADDRESS``, ``$CONTROL``, ``$CONFIG``, ``$TAKEN``, ``$STALE`` stand for a running cluster's, a port that is taken,
    and a control socket of a cluster that has died.
    """

    command: str
    exit_code: int
    words: tuple[str, ...]
    code: bool = False


START = "rpccluster -b 127.0.0.1:0 -w 2"

MISTAKES = {
    # the service
    "wrong module": Mistake(f"{START} shoop:Shop", 4, ("No module named 'shoop'; did you mean shop?",)),
    "no such module at all": Mistake(f"{START} qqq:Shop", 4, ("No module named 'qqq'; sys.path begins with $FOLDER",)),
    "a file instead of a module": Mistake(f"{START} shop.py:Shop", 4, ("did you mean shop?",)),
    "a file alone": Mistake("rpccluster shop.py", 2, ("A service is named MODULE:CLASS: shop:CLASS",)),
    "a dot instead of a colon": Mistake("rpccluster shop.Shop", 2, ("Did you mean shop:Shop?",)),
    "no class": Mistake("rpccluster shop:", 1, ("found 'shop:', expected module:Class",)),
    "wrong class": Mistake(f"{START} shop:Shp", 4, ("has no attribute 'Shp'; did you mean Shop?",)),
    "a module that raises": Mistake(f"{START} raising:Shop", 4, ("ValueError: no database",), True),
    "a relative import": Mistake(f"{START} relative:Shop", 4, ("name it PACKAGE.MODULE:NAME",), True),
    "a library that is not there": Mistake(f"{START} needing:Shop", 4, ("No module named 'nosuchlibrary'",), True),
    "a class that wants arguments": Mistake(f"{START} wanting:Shop", 4, ("required positional argument",), True),
    "nothing": Mistake("rpccluster", 1, ("expected module:Class or module:object; a file is named by -c FILE",)),
    # the file
    "a file without -c": Mistake("rpccluster good.ini", 2, ("a file by -c FILE",)),
    "no such file": Mistake("rpccluster -c god.ini", 1, ("god.ini", "cannot read the file: No such file")),
    "a file that is not readable": Mistake("rpccluster -c closed.ini", 1, ("closed.ini", "Permission denied")),
    "a typo in a key": Mistake("rpccluster -c key.ini", 1, ("key.ini:3: max_memmory:", "did you mean max_memory?")),
    "a typo in a section": Mistake(
        "rpccluster -c section.ini", 1, ("section.ini:1: [clutser]", "did you mean [cluster]?")
    ),
    "a value of a wrong type": Mistake(
        "rpccluster -c value.ini", 1, ("value.ini:3: timeout: found 'soon', expected seconds",)
    ),
    "a user who is not there": Mistake(
        "rpccluster -c user.ini", 1, ("found 'nobodyy', expected a user of this machine",)
    ),
    # addresses, paths, other clusters
    "an address without a port": Mistake(
        "rpccluster -c address.ini", 1, ("found 'localhost', expected tcp://HOST:PORT",)
    ),
    "a path instead of an address": Mistake("rpccluster -b /tmp/x shop:Shop", 1, ("found '/tmp/x'", "unix:///path")),
    "a port that is too high": Mistake("rpccluster -b :188000 shop:Shop", 1, ("188000", "expected")),
    "an address of another machine": Mistake(
        "rpccluster -b 192.0.2.1:1 shop:Shop", 1, ("this machine has no such address",)
    ),
    "a port that is taken": Mistake(
        "rpccluster -b $TAKEN shop:Shop", 1, ("another program listens there", "choose another")
    ),
    "a Unix path that is too long": Mistake(
        "rpccluster -c long.ini", 1, ("long.ini:3: bind:", "expected at most 107 bytes")
    ),
    "no right to the pidfile": Mistake(
        "rpccluster -c pid.ini",
        1,
        (
            "pid.ini:3: pidfile:",
            "expected a path in a folder that this user may write",
        ),
    ),
    "a control socket that another has": Mistake(
        "rpccluster --control $CONTROL shop:Shop",
        1,
        ("cannot open the control socket", "another program listens"),
    ),
    "a second instance": Mistake("rpccluster -c $CONFIG", 1, ("already runs with pid", "stop it first")),
    # flags and commands
    "a typo in a flag": Mistake("rpccluster --relaod shop:Shop", 2, ("Did you mean '--reload'?",)),
    "a key as a flag": Mistake("rpccluster --max-memory 1G shop:Shop", 2, ("configuration file: max_memory = VALUE",)),
    "gunicorn's worker class": Mistake("rpccluster -k gevent shop:Shop", 2, ("Workers run on gevent",)),
    "gunicorn's access log": Mistake("rpccluster --access-logfile - shop:Shop", 2, ("access_log = FILE",)),
    "a flag without its value": Mistake("rpccluster shop:Shop -w", 2, ("'-w' requires an argument",)),
    "a number that is none": Mistake("rpccluster -w two shop:Shop", 1, ("found 'two', expected a whole number",)),
    "a word of supervisord": Mistake("rpccluster restart", 2, ("Did you mean 'rpccluster reload --all'?",)),
    "a typo in a command": Mistake("rpccluster statsu", 2, ("Did you mean 'status'?",)),
    "a command's flag before it": Mistake(
        "rpccluster --json status", 2, ("behind its command: rpccluster status --json",)
    ),
    "a serving flag behind a command": Mistake(
        "rpccluster status -w 2", 2, ("It is for serving, and status does not",)
    ),
    "a typo in a command's flag": Mistake("rpccluster status --jsno", 2, ("Did you mean '--json'?",)),
    "a command without its argument": Mistake(
        "rpccluster --control $CONTROL scale", 2, ("Missing argument", "usage: rpcc")
    ),
    "scale by a word": Mistake("rpccluster --control $CONTROL scale two", 1, ("'two'", "expected")),
    # plugins
    "a typo in a plugin's name": Mistake(
        "rpccluster --control $CONTROL plugin stop dcit", 1, ("Did you mean 'dict'?",)
    ),
    "a typo in a plugin's command": Mistake("rpccluster plugin strat dict", 2, ("Did you mean 'start'?",)),
    "a plugin without a name": Mistake("rpccluster plugin stop", 2, ("Missing argument 'NAME'", "usage: rpccluster")),
    "a typo in a group": Mistake("rpccluster --control $CONTROL scale workres 2", 1, ("Did you mean 'workers'?",)),
    "a typo in a plugin's section": Mistake(
        "rpccluster -c pluign.ini", 1, ("[pluign:dict]", "did you mean [plugin:dict]?")
    ),
    "a typo in a plugin's key": Mistake(
        "rpccluster -c comand.ini", 1, ("comand.ini:2: comand:", "did you mean command?")
    ),
    "a program that is not there": Mistake("rpccluster -c program.ini", 1, ("program.ini:2: command: found 'nosuch'",)),
    "after a plugin that is not there": Mistake(
        "rpccluster -c after.ini", 1, ("after.ini:4: after:", "did you mean dict?")
    ),
    # a cluster that is not there
    "no cluster runs": Mistake("rpccluster status", 3, ("name it by -c FILE or --control PATH",)),
    "the cluster of a file does not run": Mistake("rpccluster -c good.ini stop", 3, ("found none of good.ini",)),
    "no such control socket": Mistake(
        "rpccluster --control /tmp/no.sock stop", 3, ("no master answers", "start it, or")
    ),
    "a stale control socket": Mistake("rpccluster --control $STALE status", 3, ("Connection refused", "start it, or")),
    # calls
    "nobody listens there": Mistake(
        "rpccluster call 127.0.0.1:1 count", 3, ("refused", "shows where a cluster listens")
    ),
    "a call without a port": Mistake(
        "rpccluster call 127.0.0.1 count", 2, ("found '127.0.0.1', expected tcp://HOST:PORT",)
    ),
    "a call without a method": Mistake(
        "rpccluster call $ADDRESS", 2, ("Missing argument 'METHOD'", "usage: rpccluster call")
    ),
    "a method that is not there": Mistake(
        "rpccluster call $ADDRESS summ 1", 1, ("'summ' method not found; did you mean sum?",)
    ),
    "too many arguments": Mistake("rpccluster call $ADDRESS echo 1 2", 1, ("ArgumentError", "echo")),
    "the shell takes JSON's quotes": Mistake(
        'rpccluster call $ADDRESS echo {"a":1}', 2, ("'{a:1}'", "single quotes around")
    ),
    "Python instead of JSON": Mistake(
        """rpccluster call $ADDRESS echo "{'a': 1}" """, 2, ("expected JSON", "single quotes")
    ),
}


@dataclass(frozen=True)
class Surroundings:
    """Where the mistakes are made, and what the names in their commands stand for."""

    folder: Path
    values: dict[str, str]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """A folder with files, a cluster that runs, a port that is taken, and what a dead cluster has left."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    cluster = tmp_path_factory.mktemp("cluster")
    (folder / "closed").mkdir(mode=0o500)
    (folder / "closed.ini").chmod(0)
    running = RunningCluster(
        cluster, {"pidfile": cluster / "x.pid"}, sections={"plugin:dict": {"command": "sleep 1000"}}
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        try:
            running.start()
            yield Surroundings(folder, _values(folder, running, f"127.0.0.1:{taken.getsockname()[1]}"))
        finally:
            running.stop()


def _values(folder: Path, running: RunningCluster, taken: str) -> dict[str, str]:
    stale = folder / "stale.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
        sock.listen()
    control = str(running.options["control_socket"])
    return {
        "ADDRESS": running.address,
        "CONTROL": control,
        "CONFIG": str(running.config),
        "TAKEN": taken,
        "STALE": str(stale),
        "FOLDER": str(folder),
    }


def done(here: Surroundings, command: str, shell: str) -> subprocess.CompletedProcess[str]:
    """Type the command into a shell, without root's right to everything."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RPCCLUSTER")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment.update(here.values, XDG_RUNTIME_DIR=str(here.folder), PATH=path)
    return subprocess.run(
        [*(WITHOUT_ALL_RIGHTS.split() if os.geteuid() == 0 else []), shell, "-c", command],
        cwd=here.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def told(stderr: str) -> tuple[list[str], list[str]]:
    """The lines that somebody must read, without what the log is like on any day; and those of a traceback."""
    lines = [line for line in stderr.splitlines() if not re.match(r"\[[^]]+\] \[\d+\] \[INFO\] ", line)]
    traceback = [line for line in lines if line.startswith("  ")]
    return [line for line in lines if line not in traceback], traceback


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_two_lines(here: Surroundings, name: str) -> None:
    """With words that say what to do."""
    mistake = MISTAKES[name]
    found = done(here, mistake.command, "sh")
    lines, traceback = told(found.stderr)
    assert found.returncode == mistake.exit_code, found.stderr
    assert found.stdout == ""
    assert 1 <= len(lines) <= 2, found.stderr
    for word in mistake.words:
        assert os.path.expandvars(word.replace("$FOLDER", str(here.folder))) in "\n".join(lines), found.stderr
    assert bool(traceback) == mistake.code, found.stderr
    assert not any("frozen" in line or "users_code" in line for line in traceback)


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_json_in_two_shells(here: Surroundings, shell: str) -> None:
    """In single quotes it arrives in both, and without them it is refused in both with the way to write it."""
    if not any(os.access(f"{folder}/{shell}", os.X_OK) for folder in os.environ["PATH"].split(":")):
        pytest.skip(f"found no {shell}")
    right = done(here, """rpccluster call $ADDRESS echo '{"a": [1, "b"]}'""", shell)
    assert (right.returncode, right.stdout) == (0, '{"a": [1, "b"]}\n')
    wrong = done(here, 'rpccluster call $ADDRESS echo ["a"]', shell)
    assert (wrong.returncode, "single quotes around" in wrong.stderr) == (2, True)
    apart = done(here, 'rpccluster call $ADDRESS echo {"a":1,"b":2}', shell)  # bash makes two words of it
    assert (apart.returncode, "single quotes around" in apart.stderr) == (1 if shell == "bash" else 2, True)
