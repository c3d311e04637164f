"""What a service does with signals: worker and other calls go on, and it learns what is not its own."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from rpccluster import RemoteError
from rpccluster.address import parse_address
from rpccluster.protocol.codec import make_packer
from rpccluster.testing import RunningCluster, is_alive, wait_until

SIGPIPE_SERVICE = """
import os, signal, time
from rpccluster import Service

class Default(Service):
    def worker_started(self, worker):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    def pid(self):
        return os.getpid()

    def wait(self, seconds):
        time.sleep(seconds)
"""


def send_two_and_hang_up(running: RunningCluster, *seconds: float) -> None:
    """Two calls that end one after another, and a peer that is gone before."""
    pack = make_packer().pack
    address = parse_address(running.address)
    with socket.create_connection((address.host, address.port)) as sock:
        sock.sendall(b"".join(pack([0, number, "wait", [each]]) for number, each in enumerate(seconds)))


def test_sigpipe_at_its_default_harms_nobody(make_cluster):
    """A peer that sends two calls and hangs up is a dropped reply, not the end of the worker."""
    running = make_cluster(service="default:Default", number_workers=1)
    running.write_module("default", SIGPIPE_SERVICE)
    (worker,) = running.start().worker_pids()
    with running.client_of(worker) as client:
        for _ in range(5):
            send_two_and_hang_up(running, 0.01, 0.05)
        wait_until(lambda: running.worker(worker).get("dropped_replies"), what="a reply was dropped")
        assert client.call("pid") == worker


SERVICE = """
import _signal, os, signal, sys, time
from rpccluster import Service, rpc

def set_at_import(signum, frame):
    sys.exit("at import")

signal.signal(signal.SIGTERM, set_at_import)

class TooLong(Exception):
    pass

def give_up(signum, frame):
    raise TooLong("too long")

def leave(signum, frame):
    sys.exit("left")

class Signals(Service):
    def worker_started(self, worker):
        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, lambda signum, frame: None)
        signal.signal(signal.SIGUSR2, self.note)
        self.noted = []

    def note(self, signum, frame):
        time.sleep(0.001)
        self.noted.append(signum)
        raise ValueError("of a handler that nobody waits for")

    def what_was_noted(self):
        return self.noted

    def pid(self):
        return os.getpid()

    def wait(self, seconds):
        time.sleep(seconds)
        return os.getpid()

    def limited(self, seconds, is_busy):
        before = signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            while is_busy:
                pass
            time.sleep(20)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def forget(self, seconds):
        signal.signal(signal.SIGALRM, leave)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def set_term(self, how):
        if how == "leave":
            signal.signal(signal.SIGTERM, leave)
        elif how == "nothing":
            signal.signal(signal.SIGTERM, lambda signum, frame: None)
        elif how == "ignore":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif how == "block":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        else:
            _signal.signal(signal.SIGTERM, leave)
        return os.getpid()
"""


@pytest.fixture
def signals(make_cluster) -> RunningCluster:
    """A cluster of one worker that runs the service above."""
    running = make_cluster(service="signalling:Signals", number_workers=1)
    running.write_module("signalling", SERVICE)
    return running.start()


@pytest.mark.parametrize("is_busy", [True, False], ids=["busy", "waiting"])
def test_an_alarm_ends_the_call_that_set_it(signals, is_busy):
    """Wherever the worker is at that moment; other calls, connections and the worker go on."""
    (worker,) = signals.worker_pids()
    with signals.client(10) as client, signals.client(10) as other:
        waiting = [other.call_async("wait", 0.2) for _ in range(3)]
        wait_until(lambda: signals.worker(worker)["active_calls"] == 3)
        for _ in range(3):
            with pytest.raises(RemoteError) as raised:
                client.call("limited", 0.05, is_busy)
            assert (raised.value.type, raised.value.message) == ("TooLong", "too long")
        assert [call.result(10) for call in waiting] == [worker] * 3
        assert client.call("pid") == worker


def test_an_alarm_that_comes_too_late_is_logged(signals):
    """Its call has ended; those that run then have nothing to do with it."""
    (worker,) = signals.worker_pids()
    with signals.client(10) as client:
        client.call("forget", 0.05)
        assert client.call("wait", 0.1) == worker
        signals.wait_log("A signal handler of the service failed: SystemExit: left")
        assert client.call("pid") == worker


def test_a_handler_that_waits_and_raises_harms_nobody(signals):
    """It was set outside of calls: it runs in a greenlet of its own, whatever the worker is at, and is logged."""
    (worker,) = signals.worker_pids()
    with signals.client(10) as client:
        for count in range(1, 4):
            os.kill(worker, signal.SIGUSR2)
            wait_until(lambda count=count: len(client.call("what_was_noted")) >= count)
        assert client.call("what_was_noted") == [signal.SIGUSR2] * 3
    signals.wait_log("A signal handler of the service failed: ValueError: of a handler that nobody waits for")


def test_signals_at_any_moment_lose_no_call(signals):
    """Each call has its result, or what the handler raised in it: never nothing."""
    (worker,) = signals.worker_pids()
    with signals.client(10) as client:
        calls = []
        for _ in range(300):
            calls += [client.call_async("wait", 0.0) for _ in range(5)]
            os.kill(worker, signal.SIGUSR2)
        errors = [error for error in (call.exception(10) for call in calls) if error is not None]
        strange = [error for error in errors if getattr(error, "type", "") != "ValueError"]
        assert not strange, f"{strange[0]!r} and {len(strange) - 1} more:\n{signals.log_text()[-8000:]}"
        assert client.call("pid") == worker
    assert signals.status()["workers"][0]["calls"] == 1502  # with the question what the worker offers


@pytest.mark.parametrize("how", ["leave", "nothing", "ignore", "block", "round about"])
def test_term_retires_a_worker_whatever_its_service_sets(signals, how):
    """Calls under way are answered, connections move on, and the log says where clean-up belongs."""
    (worker,) = signals.worker_pids()
    with signals.client(10) as client:
        assert client.call("set_term", how) == worker
        if how in ("block", "round about"):  # what is seen to with the next beat
            beat = signals.worker(worker)["uptime_seconds"]
            wait_until(lambda: signals.worker(worker)["uptime_seconds"] > beat + 0.6)
        under_way = [client.call_async("wait", 0.4) for _ in range(10)]
        os.kill(worker, signal.SIGTERM)
        assert [call.result(10) for call in under_way] == [worker] * 10
        wait_until(lambda: client.call("pid") != worker)
    assert signals.log_text().count("Did not set the service's handler for SIGTERM") == 2  # by each worker
    assert "Put clean-up into the hook worker_stopping" in signals.log_text()


def test_int_ends_a_worker_at_once_whatever_its_service_sets(signals):
    """A handler for INT is not set either."""
    (worker,) = signals.worker_pids()
    os.kill(worker, signal.SIGINT)
    wait_until(lambda: not is_alive(worker))
