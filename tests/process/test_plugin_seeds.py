"""Programs written for Remind-You and for ProcessHandler run as plugins: the first with nothing changed but `print`."""

from __future__ import annotations

from typing import Any

from patience import FULL_SCALE, within

from rpccluster.testing import RunningCluster, wait_until

REMIND_YOU = {
    "plugins/conf.json": """
{
    "plugins": [
        {
            "name": "dict",
            "desc": "help you remember English words",
            "fileName": "dict_plugin",
            "args": "test"
        }
    ]
}
""",
    "plugins/dict_plugin.py": """# -*- coding: utf-8 -*-

import time
import os
import requests


URL = 'www.baidu.com'

def run(args):
    print('my pid is: %u ' % os.getpid())
    time.sleep(3)

    #TODO listen and ready cmd request


""",
}
JOBS = """# coding=utf-8

import time

from rpccluster.compat.processhandler import SyncWorker, setup_file_logging

logger = setup_file_logging('jobexecute', 'master.log')


class JobExecute(SyncWorker):

    LOGGER_NAME = "jobexecute"

    def __init__(self, cfg, file_logger=None, ppid=None, sockets=None):
        SyncWorker.__init__(self, cfg, file_logger, ppid)

    def setup(self):
        super(JobExecute, self).setup()

    def init_process(self):
        super(JobExecute, self).init_process()

    def stop(self):
        super(JobExecute, self).stop()
        logger.info('stopped')

    def handle_request(self):
        while 1:
            print('go....')
            logger.info('go...')
            time.sleep(1.5)
"""


def processes(cluster: RunningCluster, name: str) -> list[dict[str, Any]]:
    """The rows of a plugin's processes."""
    rows: list[dict[str, Any]] = cluster.group(f"plugin:{name}")["processes"]
    return rows


def test_remind_yous_plugin_comes_back(make_cluster: Any) -> None:
    """From its own conf.json. It returns after three seconds, and is there again within two."""
    cluster = make_cluster(number_workers=1, include="plugins/conf.json")
    for name, text in REMIND_YOU.items():
        (cluster.folder / name).parent.mkdir(exist_ok=True)
        (cluster.folder / name).write_text(text)
    cluster.start()
    group = cluster.wait_group("plugin:dict")
    assert group["description"] == "help you remember English words"
    for _ in range(20 if FULL_SCALE else 2):
        pid = wait_until(lambda: processes(cluster, "dict")[0]["pid"])
        cluster.wait_log(f"[{pid}] [dict] my pid is: {pid}")
        wait_until(lambda pid=pid: processes(cluster, "dict")[0]["pid"] != pid)
        wait_until(lambda: processes(cluster, "dict")[0]["state"] == "ready", within(2))

    def ends() -> list[tuple[int, Any]]:
        """Of a process that is ready again: else it may have ended once more than it was started again."""
        (row,) = processes(cluster, "dict")
        assert row["state"] != "ready" or len(row["deaths"]) == min(row["restarts"], 20)
        return [(death["exit_code"], death["signal"]) for death in row["deaths"]] if row["state"] == "ready" else []

    assert set(wait_until(ends)) == {(0, None)}


def test_process_handlers_example(make_cluster: Any) -> None:
    """By two processes; what HUP and TTIN did there, two commands do here."""
    cluster = make_cluster(number_workers=1)
    cluster.write_module("jobs", JOBS)
    cluster.write_section("plugin:jobexecute", {"run": "jobs:JobExecute", "processes": 2})
    cluster.start()
    cluster.wait_group("plugin:jobexecute")
    first = {row["pid"] for row in processes(cluster, "jobexecute")}
    for pid in first:
        cluster.wait_log(f"[{pid}] [jobexecute] [INFO] go...")
        cluster.wait_log(f"[{pid}] [jobexecute] go....")
    done = cluster.run("plugin", "restart", "jobexecute")
    assert (done.returncode, done.stderr) == (0, "")
    second = {row["pid"] for row in processes(cluster, "jobexecute")}
    assert len(second) == 2 and not first & second
    for pid in first:
        cluster.wait_log(f"[{pid}] [jobexecute] [INFO] stopped")
    done = cluster.run("scale", "plugin:jobexecute", "+1")
    assert (done.returncode, done.stdout) == (0, "3 plugin:jobexecute\n")
    third = {row["pid"] for row in processes(cluster, "jobexecute")}
    assert len(third) == 3 and second < third
