"""The worst things that a service can do: each public method of `Misbehaving` is one of them. Runs in workers."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import logging.config
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gevent
from gevent.monkey import get_original

from rpccluster import Service, rpc

native_sleep = get_original("time", "sleep")


class WaitingHandler(logging.Handler):
    """Sends lines to a log server that is slow."""

    def emit(self, record: logging.LogRecord) -> None:
        gevent.sleep(0.02)


class Strange(Exception):
    """Nothing of it can be had."""

    __class__ = property(lambda self: 1 / 0)  # type: ignore[assignment]

    def __str__(self) -> str:
        gevent.sleep(0.01)
        raise SystemExit


RAISED: list[Any] = [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, gevent.GreenletExit, Strange]


class Cooperative(Service):
    """What harms nobody else in the same worker either: it waits as gevent does, forks, logs, raises, leaves work."""

    def pid(self) -> int:
        return os.getpid()

    def echo(self, value: Any) -> Any:
        return value

    def wait(self) -> None:
        time.sleep(0.3)

    def fork(self) -> bool:
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        return bool(pid)

    def fork_and_go_on(self) -> None:
        pid = os.fork()
        if pid == 0:
            gevent.joinall([gevent.spawn(time.sleep, 0.05) for _ in range(10)])
            os._exit(0)
        os.waitpid(pid, 0)

    def run_programs(self) -> int:
        programs = [subprocess.Popen(["sleep", "0.1"]) for _ in range(3)]
        return sum(program.wait() for program in programs)

    def log_slowly(self) -> None:
        if not any(isinstance(handler, WaitingHandler) for handler in logging.getLogger().handlers):
            logging.getLogger().addHandler(WaitingHandler())
        logging.getLogger("service").warning("a line")
        raise ValueError("one for the log")

    def log_natively(self) -> None:
        for handler in logging.getLogger().handlers[:]:  # the other's lock is gevent's: not for native threads
            if isinstance(handler, WaitingHandler):
                logging.getLogger().removeHandler(handler)
        jobs = [gevent.get_hub().threadpool.spawn(logging.error, "a line of a native thread") for _ in range(50)]
        logging.error("a line of a greenlet")
        gevent.joinall(jobs)

    def set_up_logging(self) -> None:
        logging.config.dictConfig({"version": 1, "root": {"handlers": [], "level": "CRITICAL"}})
        raise ValueError("one for the log")

    def raise_anything(self, number: int) -> None:
        raise RAISED[number % len(RAISED)]

    def set_an_alarm(self) -> None:
        def too_long(signum: int, frame: object) -> None:
            raise TimeoutError("mine")

        signal.signal(signal.SIGALRM, too_long)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(0.2)

    def take_the_signals(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(signum, signal.SIG_DFL)

    @rpc(timeout=0.2)
    def catch_errors(self) -> None:
        while True:
            try:
                time.sleep(1)
            except Exception:
                pass

    @rpc(timeout=0.2)
    def catch_everything(self) -> None:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            try:
                time.sleep(1)
            except BaseException:
                pass

    def leave_work(self) -> None:
        ThreadPoolExecutor(1).submit(time.sleep, 0.3)
        threading.Thread(target=time.sleep, args=(0.3,)).start()
        gevent.spawn(time.sleep, 0.3)
        gevent.get_hub().threadpool.spawn(native_sleep, 0.1)

    def fail_in_the_background(self) -> None:
        for kind in RAISED:
            gevent.spawn(self._raise, kind)

    def _raise(self, kind: Any) -> None:
        raise kind

    def run_loops(self) -> None:
        asyncio.run(asyncio.sleep(0.1))

    def throw_into_the_main_greenlet(self) -> None:
        gevent.get_hub().loop.run_callback(gevent.get_hub().parent.throw, RuntimeError("mine"))


class Misbehaving(Cooperative):
    """What may harm its own worker, and no other."""

    def spin(self) -> None:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            pass

    def block(self) -> None:
        native_sleep(0.5)

    def hold_the_interpreter(self) -> None:
        re.match(r"(a+)+$", "a" * 24 + "b")

    def hang(self) -> None:
        native_sleep(1000)

    def stop_itself(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def wait_for_ever(self) -> None:
        time.sleep(1000)

    def exit(self) -> None:
        os._exit(7)

    def crash(self) -> None:
        ctypes.string_at(0)

    def recurse(self) -> Any:
        sys.setrecursionlimit(10_000)
        return self.recurse()

    def take_memory(self) -> int:
        return len(bytearray(os.urandom(1)) * (200 << 20))

    def answer_too_much(self) -> bytes:
        return b"x" * (20 << 20)

    def take_all_descriptors(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        taken = []
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            time.sleep(0.3)
        for descriptor in taken:
            os.close(descriptor)

    def close_all_descriptors(self) -> None:
        os.closerange(3, 1000)
