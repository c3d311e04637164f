"""What the clients promise, against a real cluster: own results, late replies, kill -9, cuts at every byte."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from client.both_faces.test_harm import FACES, REPLY, REQUEST, WISH
from client.mixed import FULL_SCALE, late_replies, late_replies_on_asyncio, mixed_calls_of_threads
from patience import within
from proxy import UNHARMED, Harm, Proxy
from worker_killed import WORKER_LOST

from rpccluster import Client, ConnectFailed, Lost, NotSent, aio
from rpccluster.address import TCPAddress, parse_address
from rpccluster.testing import RunningCluster, is_alive, wait_until
from rpccluster.worker.hot.choice import why_not_compiled

CALLS = 100_000 if FULL_SCALE else 4_000
LATE_CALLS = 20_000 if FULL_SCALE else 500  # of which more than half are late
FUTURES = 1000

pytestmark = pytest.mark.timeout(600)

SERVICE = """
import time
from rpccluster.demo import Demo

class It(Demo):
    def linger(self, seconds, value=None):
        time.sleep(seconds)
        return value
"""


@pytest.fixture
def running(make_cluster) -> RunningCluster:
    """A cluster of two workers."""
    made = make_cluster(service="it:It")
    made.write_module("it", SERVICE)
    return made.start()


# -- one client for many


def test_threads_share_a_client(running):
    """8 threads share one client: every result is its own call's, over one connection."""
    with running.client(timeout=60) as client:
        assert mixed_calls_of_threads(client, CALLS) == [0] * 8
    assert sum(worker["calls"] for worker in running.status()["workers"]) >= CALLS


GREENLETS = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, sys
from client.mixed import mixed_calls
from rpccluster import Client
with Client(sys.argv[1], timeout=60) as client:
    jobs = [gevent.spawn(mixed_calls, client, caller, int(sys.argv[2]) // 200) for caller in range(200)]
    gevent.joinall(jobs, raise_error=True)
    print(sum(job.value for job in jobs))
"""


def test_greenlets_share_a_client(running):
    """200 greenlets share one client in a patched process: the same."""
    tests = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", GREENLETS, running.address, str(CALLS)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])},
        stdout=subprocess.PIPE,
        timeout=500,
        check=True,
    )
    assert done.stdout.split() == [b"0"]


# -- late replies


def test_late_replies_are_dropped(running):
    """A call that times out is followed by others on the same client: they get their own results, many times over."""
    with running.client() as client:
        client.call("sum")  # connecting takes longer than the calls that follow may
        late = late_replies(client, LATE_CALLS)
        assert LATE_CALLS // 2 < late < LATE_CALLS
        assert client.call("echo", "last") == "last"


def test_late_replies_are_dropped_on_asyncio(running):
    """The same with many tasks."""

    async def main() -> int:
        async with aio.Client(running.address) as client:
            await client.call("sum")  # connecting takes longer than the calls that follow may
            late = await late_replies_on_asyncio(client, LATE_CALLS)
            assert await client.call("echo", "last") == "last"
            return late

    assert LATE_CALLS // 2 < asyncio.run(main()) < LATE_CALLS


# -- kill -9


def outcomes_of(futures) -> list[BaseException]:
    """How they ended, a second after now at the latest on a machine that does nothing else."""
    by = time.monotonic() + within(1)
    return [future.exception(max(0.0, by - time.monotonic())) for future in futures]


def test_the_cluster_is_killed(make_cluster):
    """Under kill -9 of master and workers 1,000 pending futures end within a second, and say whether they may have run.

    Once it is started again the next call succeeds.
    """
    running = make_cluster(max_greenlets=2 * FUTURES, max_pending_calls=2 * FUTURES).start()
    address, pids = running.address, [running.master_pid, *running.worker_pids()]
    with running.client(timeout=60) as client:
        client.call("sum")  # connected: what is sent to nobody yet ends otherwise
        futures = [client.call_async("sleep", 60) for _ in range(FUTURES)]
        assert client.call("sum", 1, 2) == 3
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert {type(error) for error in outcomes_of(futures)} <= {Lost, NotSent}
        running.wait()
        wait_until(lambda: not any(map(is_alive, pids)))
        running.write_config(bind=address)
        running.start()
        assert client.call("sum", 1, 2) == 3
        assert client.call_async("sum", 1, 2).result(60) == 3


def test_the_worker_is_killed(make_cluster):
    """When only the worker is killed its successor answers the next call; the caller does nothing for it."""
    running = make_cluster(number_workers=1, max_greenlets=2 * FUTURES, max_pending_calls=2 * FUTURES).start()
    with running.client(timeout=60) as client:
        client.call("sum")  # connected: what is sent to nobody yet ends otherwise
        futures = [client.call_async("sleep", 60) for _ in range(FUTURES)]
        pid = client.call("pid")
        os.kill(pid, signal.SIGKILL)
        errors = outcomes_of(futures)
        if why_not_compiled():
            assert {type(error) for error in errors} <= {Lost, NotSent}
        else:  # the connection goes on
            assert {str(error) for error in errors} == {WORKER_LOST}
        assert client.call("pid") != pid


# -- cuts


@pytest.fixture
def target(running) -> tuple[str, int]:
    """Where the cluster is, for a proxy before it."""
    address = parse_address(running.address)
    assert isinstance(address, TCPAddress)
    return address.host, address.port


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("face", FACES)
def test_cut_at_every_byte(target, face, reset):
    """Wherever a request or its reply is cut, the call has its own result or is lost, and the next one succeeds."""
    harms = [Harm(cut_request_after=after, reset=reset) for after in range(len(REQUEST) + 1)]
    harms += [Harm(cut_reply_after=after, reset=reset) for after in range(len(REPLY) + 1)]
    for harm in harms:
        with Proxy(target, lambda number, harm=harm: UNHARMED if number else harm) as proxy:
            first, second = face(proxy.address)
        assert second == "second", harm
        is_unsent = harm.cut_request_after in range(len(WISH) + 1)
        is_within = harm.cut_request_after in range(len(REQUEST)) or harm.cut_reply_after in range(1, len(REPLY))
        is_within = is_within and not is_unsent
        is_at_once = is_unsent or harm.cut_reply_after == 0
        is_refused = is_at_once and reset  # it may be reset before it is looked at as connected
        fits = isinstance(first, Lost) or (is_refused and isinstance(first, ConnectFailed))
        assert fits or (first == "abc" and not is_within), (harm, first)


@pytest.mark.parametrize("face", FACES)
def test_an_idempotent_call_is_cut_at_every_byte(target, face):
    """A call that may run twice has its result wherever it was cut."""
    harms = [Harm(cut_request_after=after) for after in range(len(REQUEST) + 1)]
    harms += [Harm(cut_reply_after=after) for after in range(len(REPLY) + 1)]
    for harm in harms:
        with Proxy(target, lambda number, harm=harm: UNHARMED if number else harm) as proxy:
            assert face(proxy.address, idempotent=True) == ("abc", "second"), harm


def test_a_batch_is_cut_anywhere(target):
    """Of many calls in one write each has its own result or is lost, and those that have one come first."""
    for after in range(0, 600, 7 if FULL_SCALE else 61):
        with Proxy(target, lambda _, at=after: Harm(cut_reply_after=at, piece=64)) as proxy:
            with Client(proxy.address, timeout=5) as client, client.batch() as batch:
                calls = [batch.call("echo", number) for number in range(100)]
            outcomes = [call.error or call.result() for call in calls]
        answered = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
        assert sorted(answered) == [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
        assert all(isinstance(outcome, (Lost, int)) for outcome in outcomes)
