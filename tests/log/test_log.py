"""The log: its form, its files, reopening in place, and what may come from outside into a line."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.ipc.channel import channel_pair
from rpccluster.ipc.messages import ReopenLogs
from rpccluster.log import LogFiles, escaped

LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[(\d+)\] \[([A-Z]+)\] (.*)")


def logged(program: str, level: str = "info") -> str:
    """What ``program`` logs, in a process of its own: the logging belongs to a process."""
    begin = (
        "import logging, os; from rpccluster.log import LogFiles, logger, set_up_logging; "
        "set_up = lambda path, level: (logs := LogFiles(path, '')).open() or set_up_logging(logs, level); "
        f"set_up('/dev/stdout', {level!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", begin + program], capture_output=True, timeout=60, check=True)
    return done.stdout.decode()


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


# -- lines


def test_a_line_has_the_contracts_form() -> None:
    """Time with its zone, pid, level, message."""
    shown = logged("logger.info('Worker ready (pid: %d)', 5); logger.critical('x'); print(os.getpid(), flush=True)")
    first, second, pid = shown.splitlines()
    assert LINE.fullmatch(first), first
    assert LINE.fullmatch(first).groups() == (pid, "INFO", "Worker ready (pid: 5)")  # type: ignore[union-attr]
    assert LINE.fullmatch(second).groups() == (pid, "CRITICAL", "x")  # type: ignore[union-attr]


def test_a_services_own_lines_and_warnings_go_there_too() -> None:
    """Whatever logger it uses."""
    shown = logged("logging.getLogger('a.service').error('mine'); import warnings; warnings.warn('careful')")
    assert "[ERROR] mine" in shown
    assert "UserWarning: careful" in shown


@pytest.mark.parametrize(("level", "lines"), [("debug", 5), ("info", 4), ("warning", 3), ("error", 2), ("critical", 1)])
def test_the_level_decides_what_is_shown(level: str, lines: int) -> None:
    """It and those above it."""
    program = "for each in ('debug', 'info', 'warning', 'error', 'critical'): getattr(logger, each)('x')"
    assert len(logged(program, level).splitlines()) == lines


def test_setting_it_up_again_doubles_nothing() -> None:
    """A reload does so, perhaps with another level."""
    shown = logged("set_up('/dev/stdout', 'error'); logger.info('x'); logger.error('y')")
    assert [LINE.fullmatch(line)[3] for line in shown.splitlines()] == ["y"]  # type: ignore[index]


def test_text_that_cannot_be_encoded_is_escaped() -> None:
    """Lone surrogates, as file names and foreign strings may have."""
    assert "a\\udcff b" in logged("logger.info('a\\udcff b')")


def test_arguments_that_do_not_fit_harm_nobody() -> None:
    """A service's faulty log call must not fail its method: it is shown on stderr, as logging does."""
    assert "[INFO] next" in logged("logging.info('%d', 'x'); logging.info('%s'); logger.info('next')")


def test_a_descriptor_that_takes_nothing_harms_nobody() -> None:
    """A full disk, a closed pipe."""
    program = "set_up('/dev/full', 'info'); logger.info('x'); print('alive')"
    assert logged(program) == "alive\n"


def test_a_services_handler_that_raises_harms_nobody() -> None:
    """Whoever logs through ours goes on; the service's own loggers are its own affair."""
    program = "class Bad(logging.Handler):\n    def emit(self, record): raise SystemExit\n"
    program += "logging.getLogger().addHandler(Bad())\nlogger.warning('one'); logger.warning('two')\n"
    program += "try:\n    logging.getLogger('own').warning('three')\nexcept SystemExit:\n    logger.warning('raised')"
    assert [line.rpartition(" ")[2] for line in logged(program).splitlines()] == ["one", "two", "three", "raised"]


def test_each_line_is_one_write(tmp_path: Path) -> None:
    """So that lines of several processes never mix."""
    program = (
        "import sys; from rpccluster.log import LogFiles, logger, set_up_logging\n"
        "logs = LogFiles(sys.argv[1], ''); logs.open(); set_up_logging(logs, 'info')\n"
        "for number in range(500): logger.info('x' * 300)\n"
    )
    path = tmp_path / "log"
    runs = [subprocess.Popen([sys.executable, "-c", program, str(path)]) for _ in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    lines = path.read_text().splitlines()
    assert len(lines) == 1500
    assert all(LINE.fullmatch(line) for line in lines)


def test_nothing_that_is_logged_can_pass_for_another_line() -> None:
    """A service may log what its callers sent: what follows a newline is indented."""
    shown = logged("logging.info('%s', 'a\\n[2026-01-01 00:00:00 +0000] [1] [INFO] forged\\n\\nb')")
    first, *rest = shown.splitlines()
    assert LINE.fullmatch(first), first
    assert rest == ["  [2026-01-01 00:00:00 +0000] [1] [INFO] forged", "  ", "  b"]


# -- files


def test_no_paths_mean_stderr_and_no_access_log() -> None:
    """Nothing is opened, nothing closed."""
    logs = LogFiles("", "")
    logs.open()
    assert (logs.log_descriptor, logs.access_descriptor, logs.descriptors()) == (2, None, [2])
    logs.close()
    assert is_open(2)


def test_files_are_made_with_their_folders_and_appended_to(tmp_path: Path) -> None:
    """What was written before stays; the descriptors are closed on exec."""
    log, access = tmp_path / "deep/er/log", tmp_path / "access"
    access.write_text("before\n")
    logs = LogFiles(str(log), str(access))
    logs.open()
    assert logs.access_descriptor is not None
    os.write(logs.log_descriptor, b"a\n")
    os.write(logs.access_descriptor, b"b\n")
    assert (log.read_text(), access.read_text()) == ("a\n", "before\nb\n")
    assert logs.descriptors() == [logs.log_descriptor, logs.access_descriptor]
    assert not any(os.get_inheritable(descriptor) for descriptor in logs.descriptors())
    descriptors = logs.descriptors()
    logs.close()
    assert not any(map(is_open, descriptors))


def test_an_access_log_that_is_on_shares_the_log(tmp_path: Path) -> None:
    """One descriptor, told once, closed once."""
    logs = LogFiles(str(tmp_path / "log"), "on")
    logs.open()
    assert logs.access_descriptor == logs.log_descriptor
    assert logs.descriptors() == [logs.log_descriptor]
    logs.close()
    both = LogFiles("", "on")
    both.open()
    assert both.descriptors() == [2]


def test_if_one_cannot_be_opened_none_is(tmp_path: Path) -> None:
    """And the error names it."""
    before = sorted(os.listdir("/proc/self/fd"))
    logs = LogFiles(str(tmp_path / "log"), str(tmp_path))
    with pytest.raises(IsADirectoryError) as raised:
        logs.open()
    assert raised.value.filename == str(tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_belong_to_the_workers_user(tmp_path: Path) -> None:
    """New ones and reopened ones."""
    logs = LogFiles(str(tmp_path / "log"), str(tmp_path / "access"), owner=(65534, 65533))
    logs.open()
    os.rename(tmp_path / "log", tmp_path / "log.1")
    logs.reopen()
    for name in ("log", "log.1", "access"):
        assert (os.stat(tmp_path / name).st_uid, os.stat(tmp_path / name).st_gid) == (65534, 65533)
    logs.close()


def test_reopening_keeps_the_numbers(tmp_path: Path) -> None:
    """The old file keeps what it has, the new one gets what comes; nothing is left open."""
    logs = LogFiles(str(tmp_path / "log"), str(tmp_path / "access"))
    logs.open()
    before, open_before = logs.descriptors(), sorted(os.listdir("/proc/self/fd"))
    os.write(before[0], b"old\n")
    os.rename(tmp_path / "log", tmp_path / "log.1")
    os.rename(tmp_path / "access", tmp_path / "access.1")
    assert logs.reopen() == before
    for descriptor in before:
        os.write(descriptor, b"new\n")
    assert (tmp_path / "log.1").read_text() == "old\n"
    assert (tmp_path / "log").read_text() == (tmp_path / "access").read_text() == "new\n"
    assert not any(os.get_inheritable(descriptor) for descriptor in before)
    assert sorted(os.listdir("/proc/self/fd")) == open_before
    logs.close()


def test_reopening_stderr_does_nothing() -> None:
    """It is whoever started us that decides where it goes."""
    logs = LogFiles("", "on")
    logs.open()
    assert logs.reopen() == [2]


def test_a_folder_that_has_gone_is_an_error_and_the_old_file_stays(tmp_path: Path) -> None:
    """Log lines go on where they went."""
    logs = LogFiles(str(tmp_path / "run" / "log"), "")
    logs.open()
    os.rename(tmp_path / "run", tmp_path / "gone")
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(OSError, match=r"run"):
        logs.reopen()
    os.write(logs.log_descriptor, b"still\n")
    assert (tmp_path / "gone" / "log").read_text() == "still\n"
    logs.close()


def test_a_worker_takes_what_the_master_opened(tmp_path: Path) -> None:
    """It may have no right to open them: descriptors come over the channel and get its own numbers."""
    logs = LogFiles(str(tmp_path / "log"), str(tmp_path / "access"))
    logs.open()
    masters, workers = channel_pair()
    new = [os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC) for name in ("log.new", "access.new")]
    open_before = sorted(os.listdir("/proc/self/fd"))
    masters.send(ReopenLogs(), new)
    ((_, received),) = workers.receive()
    before = logs.descriptors()
    logs.take(received)
    assert logs.descriptors() == before
    for descriptor in before:
        os.write(descriptor, b"x\n")
    assert (tmp_path / "log.new").read_text() == (tmp_path / "access.new").read_text() == "x\n"
    assert sorted(os.listdir("/proc/self/fd")) == open_before
    for descriptor in new:
        os.close(descriptor)
    for channel in (masters, workers):
        channel.close()
    logs.close()


def test_writers_are_not_disturbed_by_reopening(tmp_path: Path) -> None:
    """Another thread writes all the time: each line goes to the old file or to the new one."""
    logs = LogFiles(str(tmp_path / "log"), "")
    logs.open()
    written = 0
    stop = threading.Event()

    def write() -> None:
        nonlocal written
        while not stop.is_set() or not written:
            os.write(logs.log_descriptor, b"x\n")
            written += 1

    thread = threading.Thread(target=write)
    thread.start()
    for number in range(20):
        os.rename(tmp_path / "log", tmp_path / f"log.{number}")
        logs.reopen()
    stop.set()
    thread.join()
    logs.close()
    assert sum(len(path.read_text().splitlines()) for path in tmp_path.iterdir()) == written


# -- text from outside


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[2J", "\\x1b[2J"),
        ("Grüße 日本", "Grüße 日本"),
        ("\udcff", "\\udcff"),
        ("\u202eevil", "\\u202eevil"),
        ("\x00", "\\x00"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 200 + "…"),
    ],
)
def test_text_from_outside_is_escaped_and_cut(text: str, shown: str) -> None:
    """One line stays one line, and a short one."""
    assert escaped(text) == shown


@given(st.text(st.characters() | st.characters(categories=["Cs"])))
def test_escaped_text_can_always_be_shown(text: str) -> None:
    """Printable, and it can be encoded."""
    shown = escaped(text)
    assert shown.isprintable()
    shown.encode("utf-8")


def test_this_process_was_left_alone() -> None:
    """The tests above set up logging in processes of their own."""
    assert not any(type(handler).__name__ == "_DescriptorHandler" for handler in logging.getLogger().handlers)


# -- tracebacks


def test_a_traceback_is_shown_as_python_does() -> None:
    """Its calls, the exception, and those before it."""
    shown = logged(
        "def inner(): raise KeyError('x')\n"
        "try:\n"
        "    try: inner()\n"
        "    except KeyError as error: raise ValueError('y') from error\n"
        "except ValueError as error:\n"
        "    try: raise RuntimeError('z')\n"
        "    except RuntimeError: logger.warning('failed', exc_info=True)\n"
    )
    lines = [line[2:] for line in shown.splitlines() if not line.startswith("      ")]
    assert LINE.fullmatch(shown.splitlines()[0]).group(3) == "failed"  # type: ignore[union-attr]
    assert lines[1:] == [
        "Traceback (most recent call last):",
        '  File "<string>", line 4, in <module>',
        '  File "<string>", line 2, in inner',
        "KeyError: 'x'",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        '  File "<string>", line 5, in <module>',
        "ValueError: y",
        "During handling of the above exception, another exception occurred:",
        "Traceback (most recent call last):",
        '  File "<string>", line 7, in <module>',
        "RuntimeError: z",
    ]


@pytest.mark.parametrize(
    "make",
    [
        "error = ValueError('a\\n[2026-01-01 00:00:00 +0000] [1] [INFO] forged\\x1b[2J\\ud800')",
        "error = ValueError('x' * 10_000_000)",
        "error = type('a\\n[2026-01-01 00:00:00 +0000] [1] [INFO] forged', (Exception,), {})('x')",
        "class Silent(Exception):\n    def __str__(self): raise SystemExit\nerror = Silent()",
        "class Silent(Exception):\n    def __repr__(self): raise KeyboardInterrupt\nerror = Silent()",
        "class Noted(Exception):\n    __notes__ = property(lambda self: 1 / 0)\nerror = Noted()",
        "class Loose(Exception):\n    __cause__ = property(lambda self: 1 / 0)\nerror = Loose()",
        "error = None\nfor _ in range(100_000): last, error = error, ValueError(); error.__cause__ = last",
        "error = ValueError('x'); error.__cause__ = KeyError(); error.__cause__.__cause__ = error",
        "def deeper(): deeper()\ntry: deeper()\nexcept RecursionError as caught: error = caught",
        "def one(): two()\ndef two(): one()\ntry: one()\nexcept RecursionError as caught: error = caught",
        "error = MemoryError()",
        "error = SystemExit(3)",
    ],
)
def test_no_exception_can_spoil_the_log(make: str) -> None:
    """Whatever its name, its text, its causes: a bounded number of bounded lines, none forged, and the log goes on."""
    program = (
        f"{make}\ntry: raise error\nexcept BaseException: logger.warning('failed', exc_info=True)\nlogger.info('next')"
    )
    shown = logged(program)
    assert len(shown) < 25_000
    first, *lines, last = shown.splitlines()
    assert LINE.fullmatch(first), first
    assert LINE.fullmatch(last), last
    assert lines
    assert all(line.startswith("  ") for line in lines)
    assert all(line.isprintable() and len(line) <= 1_010 for line in lines)


def test_a_worker_takes_another_access_log(tmp_path: Path) -> None:
    """A file of its own, the log, none, and back: what was once its descriptor keeps its number for calls that run."""
    made = {}
    for name in ("log", "one", "two"):
        made[name] = tmp_path / name
        made[name].touch()

    def descriptors(*names: str) -> list[int]:
        return [os.open(made[name], os.O_WRONLY | os.O_APPEND) for name in names]

    files = LogFiles(str(made["log"]), "")
    files.open()
    files.take(descriptors("log", "one"), str(made["one"]))
    first = files.access_outlet
    assert first is not None
    first.write(b"1\n")
    files.take(descriptors("log", "two"), str(made["two"]))
    assert files.access_outlet is first
    first.write(b"2\n")
    files.take(descriptors("log"), "on")
    assert files.access_outlet is files.outlet
    first.write(b"of a call that still runs\n")
    files.take(descriptors("log"), "")
    assert (files.access_outlet, files.access_descriptor, files.descriptors()) == (None, None, [files.log_descriptor])
    files.take(descriptors("log", "one"), str(made["one"]))
    assert files.access_outlet is first
    files.take(descriptors("log", "two"))  # reopened
    first.write(b"3\n")
    assert [made[name].read_text() for name in ("one", "two", "log")] == [
        "1\n",
        "2\n3\n",
        "of a call that still runs\n",
    ]
    files.close()
