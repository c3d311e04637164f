"""rpccluster's own lines come, once and at once, whatever a service does to `logging`."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import logging, logging.config, os
from rpccluster.log import LogFiles, logger, set_up_logging
logs = LogFiles('/dev/stdout', '')
logs.open()
set_up_logging(logs, 'info')
shown = []
class Theirs(logging.Handler):
    def emit(self, record):
        shown.append(record.getMessage())
"""
THEIRS = "logging.getLogger().addHandler(Theirs())\n"


def lines_of(program: str) -> list[str]:
    """The messages that it logs, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", BEGIN + program], capture_output=True, timeout=60, check=True)
    assert done.stderr == b""
    return [line.partition("] ")[2].partition("] ")[2] for line in done.stdout.decode().splitlines()]


@pytest.mark.parametrize(
    "harm",
    [
        "logging.config.dictConfig({'version': 1})",
        "logging.config.dictConfig({'version': 1, 'root': {'level': 'ERROR', 'handlers': []}})",
        "logging.config.dictConfig({'version': 1, 'loggers': {'rpccluster': {'level': 'ERROR', 'propagate': False}}})",
        "logging.basicConfig(force=True, level='ERROR')",
        "logging.getLogger().handlers.clear()",
        "logging.getLogger().setLevel('CRITICAL')",
        "logging.disable()",
        "logging.shutdown()",
        "logger.setLevel('CRITICAL')",
        "logger.disabled = True",
        "logger.addFilter(lambda record: False)",
        "logging.getLogger().handlers[0].addFilter(lambda record: 1 / 0)",
        "logging.setLogRecordFactory(lambda *_: 1 / 0)",
    ],
)
def test_own_lines_come_all_the_same(harm: str) -> None:
    """Each once."""
    assert lines_of(f"{harm}\nlogger.info('one'); logger.warning('two')") == ["[INFO] one", "[WARNING] two"]


def test_the_level_may_be_set_while_it_runs() -> None:
    """That of rpccluster's lines, and of the service's."""
    program = "from rpccluster.log import set_level\nown = logging.getLogger('own')\n"
    for level in ("warning", "debug"):
        program += f"set_level('{level}'); logger.info('{level}'); own.debug('own {level}')\n"
    assert lines_of(program) == ["[INFO] debug", "[DEBUG] own debug"]


def test_others_see_them_too() -> None:
    """Of the level that `logging` is set to, by the service's own factory of records."""
    program = THEIRS + "logging.getLogger().setLevel('WARNING')\n"
    program += "logging.setLogRecordFactory(lambda *args, **more: shown.append('made') or logging.LogRecord(*args))\n"
    program += "logger.info('one'); logger.warning('%s', 'two'); logging.getLogger('own').error('mine'); print(shown)"
    done = subprocess.run([sys.executable, "-c", BEGIN + program], capture_output=True, timeout=60, check=True)
    assert done.stdout.decode().splitlines()[-1] == "['made', 'two', 'made', 'mine']"


def test_others_are_shown_them_by_whom_it_was_given_to() -> None:
    """And where there are no others nobody is."""
    program = "taken = []\nlogger.hand_on = taken.append\nlogger.info('one')\n" + THEIRS
    program += "logger.info('two'); logger.info('three')\nassert shown == []\nlogger.show_others(taken[1])\n"
    program += "assert shown == ['three'], shown\nassert len(taken) == 2"
    assert lines_of(program) == ["[INFO] one", "[INFO] two", "[INFO] three"]


def test_native_threads_may_log_in_a_patched_process() -> None:
    """Beside greenlets that do, through loggers that are there and new ones; nobody waits for a lock for ever."""
    program = """
import gevent
from rpccluster.worker.process.patches import patch
patch()
def work(name):
    for number in range(300):
        logging.getLogger(f'{name}.{number % 50}').warning('a line')
    return name
pool = gevent.get_hub().threadpool
native = [pool.spawn(work, f'n{number}') for number in range(8)]
greenlets = [gevent.spawn(work, f'g{number}') for number in range(4)]
assert [each.get() for each in native + greenlets]
logs.drain()
os._exit(0)  # as a worker does
"""
    assert lines_of(program) == ["[WARNING] a line"] * 3600
