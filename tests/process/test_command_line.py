"""The program's own flags: what they set, what overrides what, and the checks that start nothing."""

from __future__ import annotations

import os
import re
import socket

import pytest

from rpccluster import __version__
from rpccluster.config import OPTIONS
from rpccluster.testing import title_of


def printed(made, *flags: str) -> dict[str, tuple[str, str]]:
    """What ``--print-config`` shows: key to value and origin."""
    done = made.run(*flags, "--print-config")
    assert (done.returncode, done.stderr) == (0, "")
    found = re.findall(r"^(\w+) += (.*?) *# (.*)$", done.stdout, re.MULTILINE)
    return {key: (value, origin) for key, value, origin in found}


def test_a_good_configuration_passes_the_check(make_cluster):
    """``--check-config`` ends with 0, says nothing, starts nothing, touches nothing."""
    made = make_cluster(log_file=make_cluster().folder / "it.log")
    done = made.run("--check-config")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(os.listdir(made.folder)) == ["cluster.ini"]


def test_the_check_does_not_mind_a_running_cluster(cluster):
    """It may be asked before a HUP: neither the pidfile's lock nor the busy port is a fault."""
    running = cluster(number_workers=1)
    running.write_config(bind=running.address)
    assert running.run("--check-config").returncode == 0
    assert running.status()["master"]["state"] == "running"


def test_a_service_that_takes_the_process_down_fails_the_check(make_cluster):
    """It is loaded in a child: exit code 4 even if it ends the process, or is killed by a signal."""
    made = make_cluster(service="it:It")
    for text in ("import os\nos._exit(0)\n", "import os\nos.kill(os.getpid(), 9)\n", "raise SystemExit(0)\n"):
        made.write_module("it", text)
        done = made.run("--check-config")
        assert done.returncode == 4, text
        assert "the service 'it:It'" in done.stderr


def test_every_option_is_shown_with_its_origin(make_cluster):
    """``--print-config``: the default, the line of the file, the environment or the flag that set it."""
    made = make_cluster({"RPCCLUSTER_CMD_ARGS": "--workers 3 --log-level=debug -b 127.0.0.1:1"}, number_workers=2)
    shown = printed(made, "-b", "127.0.0.1:2", "--bind", "tcp://127.0.0.1:3", "--daemon")
    assert list(shown) == list(OPTIONS)
    line = made.config.read_text().splitlines().index("graceful_timeout = 10") + 1
    assert shown["graceful_timeout"] == ("10", f"{made.config}:{line}")
    assert shown["number_workers"] == ("3", "RPCCLUSTER_CMD_ARGS")
    assert shown["log_level"] == ("debug", "RPCCLUSTER_CMD_ARGS")
    assert shown["bind"] == ("tcp://127.0.0.1:2, tcp://127.0.0.1:3", "flag --bind")
    assert shown["daemonize"] == ("true", "flag --daemon")
    assert shown["timeout"] == ("30", "default")
    assert shown["max_message_size"] == ("16M", "default")
    assert not (made.folder / "cluster.pid").exists()


def test_the_environment_may_name_the_file(make_cluster):
    """``RPCCLUSTER_CMD_ARGS`` holds any flags, ``-c`` among them; a flag counts more."""
    made, other = make_cluster(proc_name="one"), make_cluster(proc_name="other")
    environment = {"RPCCLUSTER_CMD_ARGS": f"-c '{other.config}'"}
    third = make_cluster(environment)
    third.config = made.config
    assert printed(third)["proc_name"][0] == "one"
    third.command = lambda *words: [word for word in made.command(*words) if word not in ("-c", str(made.config))]
    assert printed(third)["proc_name"][0] == "other"


def test_a_faulty_environment_is_a_fault(make_cluster):
    """It is not ignored, and named as the place of the fault."""
    made = make_cluster({"RPCCLUSTER_CMD_ARGS": "--workers many"})
    done = made.run()
    assert (done.returncode, done.stderr) == (
        1,
        "RPCCLUSTER_CMD_ARGS: number_workers: found 'many', expected a whole number, 1 to 512\n",
    )


@pytest.mark.parametrize("words", ["--wrokers 3", "stop", "--workers", "--check-config extra", "'unclosed"])
def test_an_environment_that_is_no_flags_is_refused(make_cluster, words):
    """A typing error there, or a word that is no flag, must not pass unseen."""
    done = make_cluster({"RPCCLUSTER_CMD_ARGS": words}).run("--print-config")
    assert done.returncode in (1, 2), done.stdout
    assert "RPCCLUSTER_CMD_ARGS" in done.stderr
    assert "Traceback" not in done.stderr


def test_flags_alone_run_a_cluster(make_cluster):
    """gunicorn's flags, without a word in the file but the service and the control socket."""
    made = make_cluster(bind=None, number_workers=None, pidfile=None, service="hers:It")
    apart = made.folder / "apart"
    apart.mkdir()
    (apart / "hers.py").write_text("import os\nclass It:\n    def folder(self):\n        return os.getcwd()\n")
    path = made.folder / "it.sock"
    made.start(
        *("-b", "127.0.0.1:0", "-b", f"unix://{path}", "-w", "1", "-p", str(made.folder / "it.pid"), "-n", "hers"),
        *("--pythonpath", str(apart), "--chdir", str(apart), "--log-level", "debug"),
        *("--log-file", str(made.folder / "it.log")),
    )
    status = made.status()
    assert len(status["workers"]) == 1
    assert status["master"]["listeners"][1] == f"unix://{path}"
    assert int((made.folder / "it.pid").read_text()) == status["master"]["pid"]
    assert title_of(status["master"]["pid"]) == "rpccluster: master [hers]"
    assert title_of(status["workers"][0]["pid"]) == "rpccluster: worker 0 [hers]"
    assert "Listening at: " in (made.folder / "it.log").read_text()
    with made.client() as client:
        assert client.call("folder") == str(apart)


def test_log_levels(make_cluster):
    """``--log-level`` quiets what is less important; the line's form is the contract's."""
    made = make_cluster(number_workers=1).start("--log-level", "warning")
    with made.client() as client, pytest.raises(Exception, match="boom"):
        client.call("fail", "boom")
    made.wait_log("boom")
    assert "Booting worker" not in made.log_text()
    first = made.log_text().splitlines()[0]
    assert re.fullmatch(
        r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[WARNING\] Method fail failed for .*boom", first
    )


def test_version_and_help(make_cluster):
    """``-V`` and ``--help`` need no file."""
    made = make_cluster()
    made.config.unlink()
    assert made.run("-V").stdout == f"rpccluster {__version__}\n"
    text = made.run("--help").stdout
    for flag in ("--config", "--bind", "--workers", "--daemon", "--pid", "--name", "--user", "--group", "--pythonpath",
                 "--chdir", "--log-level", "--log-file", "--check-config", "--print-config", "--version"):  # fmt: skip
        assert flag in text
    for command in ("status", "scale", "reload", "upgrade", "stop", "call"):
        assert re.search(rf"^  {command} ", text, re.MULTILINE)


def test_a_busy_port_does_not_spoil_the_neighbour(make_cluster):
    """A start that fails leaves the cluster that has the port as it was."""
    first = make_cluster(number_workers=1).start()
    done = make_cluster(number_workers=1, bind=first.address).run()
    assert done.returncode == 1
    assert f"cannot listen at {first.address}: Address already in use" in done.stderr
    with first.client() as client:
        assert client.call("sum", 1, 2) == 3
    host, port = first.address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))):
        pass
