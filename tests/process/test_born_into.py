"""What a cluster or a command may be born into: descriptors, parents, folders and locales that others have left it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from rpccluster.testing import wait_until

#: As a locale is where there is none: Python takes file names to be ASCII then.
NO_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}


def run(*words: str, **options) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    return subprocess.run(words, capture_output=True, encoding="utf-8", timeout=60, check=False, **options)


def test_a_daemon_holds_nothing_of_whoever_started_it(make_cluster):
    """Who waits for the end of a pipe waits for the command, not for the master, its workers, or its successor."""
    made = make_cluster(number_workers=1, log_file=make_cluster().folder / "it.log")
    read_end, write_end = os.pipe()
    started = run(*made.command("-D"), cwd=made.folder, env=made._environment, pass_fds=(write_end,))
    os.close(write_end)
    assert started.returncode == 0
    assert wait([read_end], 10)
    assert os.read(read_end, 1) == b""
    os.close(read_end)
    assert made.run("upgrade").returncode == 0


def test_a_parent_that_ignores_chld(make_cluster):
    """A good file is fine, and a bad service is told."""
    made = make_cluster(number_workers=1)
    ignore = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    for service, exit_code in (("rpccluster.demo:Demo", 0), ("rpccluster.demo:Nothing", 4)):
        made.write_config(service=service)
        command = [sys.executable, "-c", ignore, *made.command("--check-config")]
        done = run(*command, cwd=made.folder, env=made._environment)
        assert (done.returncode, "Traceback" in done.stderr) == (exit_code, False), done.stderr


def test_calling_from_a_folder_that_was_deleted(cluster, tmp_path):
    """What needs no folder does not miss it."""
    running = cluster(number_workers=1)
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [sys.executable, "-m", "rpccluster", "call", running.address, "sum", "1", "2"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = run("sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(gone), *command, env=environment)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_paths_that_no_locale_knows(make_cluster):
    """Names of files are UTF-8 all the same: of the file, in it, and on the command line."""
    made = make_cluster(environment=NO_LOCALE, number_workers=1, service="it:It")
    folder = made.folder / "Größe"
    folder.mkdir()
    made.config = folder / "ü.ini"
    paths = {"bind": f"unix://{folder}/ü.sock", "pidfile": folder / "ü.pid", "log_file": folder / "ü.log"}
    made.write_config(**paths, control_socket=folder / "größe.sock")
    made.write_module("it", "class It:\n    def hello(self):\n        '''日本.'''\n        return 'ü'\n")
    made.start()
    assert {path.name for path in folder.iterdir()} == {"ü.ini", "ü.sock", "größe.sock", "ü.pid", "ü.log"}
    assert made.run("--print-config").returncode == 0
    call = [sys.executable, "-m", "rpccluster", "call", f"unix://{folder}/ü.sock"]
    environment = {**os.environ, **NO_LOCALE}
    assert run(*call, "hello", env=environment).stdout == '"\\u00fc"\n'
    assert "\\u65e5\\u672c." in run(*call, "--discover", env=environment).stdout
    call[-1] = f"unix://{folder}/none.sock"
    done = run(*call, "hello", env=environment)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)


IN_MEMORY = ("accept-lock", "lead", "ledger", "metrics")


def test_no_folder_need_be_writable(cluster):
    """The lock of those who accept, the page of the lead, the ledger and counters are in memory, not in a file."""
    running = cluster(number_workers=1)
    for pid in (running.master_pid, *running.worker_pids()):
        files = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
        in_memory = {file for file in files if file.endswith(" (deleted)")}
        assert in_memory <= {f"/memfd:rpccluster-{name} (deleted)" for name in IN_MEMORY}


SERVE = "self._parts.control.serve(self._parts.operations.methods())"
BREAK = """
import sys
from rpccluster.assembly import assemble as serve
from rpccluster.cli.main import main

class Supervisor(serve.Supervisor):
    def {method}(self, *arguments):
        {before}
        raise OSError(28, "No space left on device")

serve.Supervisor = Supervisor
sys.argv[0] = "rpccluster"
main()
"""


@pytest.mark.parametrize(("method", "before"), [("__init__", "pass"), ("begin", SERVE)])
def test_a_start_that_fails_late_leaves_nothing(make_cluster, method, before):
    """Neither a pid, nor a socket, nor a process."""
    made = make_cluster(unix_socket=make_cluster().folder / "it.sock", number_workers=1)
    command = [sys.executable, "-c", BREAK.format(method=method, before=before), "-c", str(made.config)]
    done = run(*command, cwd=made.folder, env=made._environment)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert made.left_behind() == []
    assert not Path(str(made.options["unix_socket"])).exists()
    made.start()
    made.signal(signal.SIGTERM)
    assert made.wait() == 0
    wait_until(lambda: made.left_behind() == [])
