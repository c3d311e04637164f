"""A program with a little master of its own, and no more of a dispatcher than tells each process what to run next."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import BootFailed, KillTask, Retire, TaskProcess, TaskProcessGone
from rpccluster.tasks.wire import PICKLE, Done, Inbound, Run, pack_run

CHECKOUT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 60


class Process:
    """A task process, as the program sees it."""

    def __init__(self, message: TaskProcess, descriptors: list[int]) -> None:
        self.pid, self.serial, self.slot = message.pid, message.serial, message.slot
        self.socket = socket.socket(fileno=descriptors[0])
        self.tickets = descriptors[1:]
        self.inbound = Inbound()
        self.running = 0
        self.run: Any = None
        self.is_open = True

    def close(self) -> None:
        """Close all that came with it."""
        self.socket.close()
        for end in self.tickets:
            os.close(end)


class Little:
    """The program's side. Each task is a target, its arguments, and the options of `Run`."""

    def __init__(self, channel: Channel, process: subprocess.Popen[bytes]) -> None:
        self.channel, self.master = channel, process
        self.processes: dict[int, Process] = {}
        self.waiting: list[tuple[int, Run]] = []
        self.outcomes: dict[int, list[Any]] = {}  # by number: `Done`, or `TaskProcessGone`, with the time
        self.gone: list[TaskProcessGone] = []
        self.failures: list[BootFailed] = []
        self.full_at: list[float] = []  # when another process has come
        self._number = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ, None)
        self.is_over = False

    def submit(self, target: str, *args: Any, **options: Any) -> int:
        """Let a task wait. Returns its number."""
        self._number += 1
        payload = pickle.dumps((args, {}), 5)
        self.waiting.append((self._number, Run(self._number, self._number, 1, target, PICKLE, payload, **options)))
        return self._number

    def run(self, target: str, *args: Any, **options: Any) -> Any:
        """Run a task. Returns its outcome."""
        number = self.submit(target, *args, **options)
        self.wait(lambda: number in self.outcomes)
        return self.outcomes[number][0]

    def result(self, target: str, *args: Any, **options: Any) -> Any:
        """Run a task that returns. Returns its result."""
        done = self.run(target, *args, **options)
        assert (type(done), done.outcome) == (Done, "ok"), done
        return pickle.loads(done.payload)

    def wait(self, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> None:
        """Turn until ``condition`` holds."""
        give_up_at = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up_at, (self.processes, self.gone, self.failures)
            self.turn(0.05)

    def turn(self, seconds: float) -> None:
        """Give tasks to idle processes, and hear what comes within ``seconds``."""
        for process in self.processes.values():
            if self.waiting and not process.running and process.is_open:
                self._begin(process)
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                self._hear()
            elif key.data.is_open:
                self._read(key.data)

    def _begin(self, process: Process) -> None:
        number, run = self.waiting[0]
        with contextlib.suppress(OSError):
            process.socket.sendall(pack_run(run))
            process.running, process.run = number, run
            del self.waiting[0]

    def _hear(self) -> None:
        for message, descriptors in self.channel.receive():
            if isinstance(message, TaskProcess):
                process = self.processes[message.serial] = Process(message, descriptors)
                self.full_at.append(time.monotonic())
                self._selector.register(process.socket, selectors.EVENT_READ, process)
            elif isinstance(message, TaskProcessGone):
                self._note_gone(message)
            elif isinstance(message, BootFailed):
                self.failures.append(message)
        if self.channel.is_closed and not self.is_over:
            self.is_over = True
            self._selector.unregister(self.channel)

    def _note_gone(self, message: TaskProcessGone) -> None:
        self.gone.append(message)
        process = self.processes.pop(message.serial)
        while process.is_open and self._read(process):
            pass
        if process.is_open:  # it is killed, and has not ended yet
            self._selector.unregister(process.socket)
        if process.running and process.running not in self.outcomes:
            if process.running == message.number:
                self.outcomes[process.running] = [message, time.time(), process]
            else:  # it had not begun
                self.waiting.insert(0, (process.running, process.run))
        process.close()

    def _read(self, process: Process) -> bool:
        """Read what a process tells. Returns whether there may be more."""
        try:
            data = process.socket.recv(1 << 20)
        except ConnectionResetError:
            return True
        except BlockingIOError:
            return False
        if not data:
            process.is_open = False
            self._selector.unregister(process.socket)
        for message in process.inbound.feed(data):
            if isinstance(message, Done):
                assert message.number not in self.outcomes
                self.outcomes[message.number] = [message, time.time(), process]
                process.running = 0
        return True

    def kill_task(self, number: int) -> None:
        """Have the process killed that runs ``number``."""
        serial = next(each.serial for each in self.processes.values() if each.running == number)
        self.channel.send(KillTask(serial, number))

    def stop(self, seconds: float) -> int:
        """Let the processes end within that time. Returns the exit code of the little master."""
        self.channel.send(Retire(seconds, True))
        self.wait(lambda: self.is_over)
        return self.master.wait(WAIT_SECONDS)


@contextlib.contextmanager
def little(**options: Any) -> Iterator[Little]:
    """A program with a little master; it ends with the block."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = [*options.pop("path", []), *sys.path]
    command = [sys.executable, "-m", "rpccluster.assembly.little_master", str(theirs.fileno())]
    with theirs:
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=CHECKOUT)
    ours.send(json.dumps({"path": path, "processes": 2, **options}).encode())
    made = Little(Channel(ours), process)
    try:
        yield made
    finally:
        made.channel.close()
        assert process.wait(WAIT_SECONDS) == 0
        for each in made.processes.values():
            each.close()
