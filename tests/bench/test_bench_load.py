"""The load generator and the floor, in C: right replies are counted, wrong ones noticed. Skipped without a compiler."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgpack
import psutil
import pytest

from bench.build import NoCompilerError, build
from bench.errors import BenchError
from bench.load import Call, encode, opened
from bench.peers import PEERS, with_workers
from bench.stage import Cores, Measured, Stage

SUM = Call("sum", (1, 2), 3)
Answer = Callable[[bytes], bytes]
FLOOR = PEERS["floor"]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    try:
        build("floor")
        build("load")
    except NoCompilerError as error:
        pytest.skip(str(error))


def measure(calls: list[Call], connections: int = 1, seconds: float = 0.05, *flags: str) -> Measured:
    with Stage(Cores.found()) as stage:
        return stage.measure(replace(FLOOR, command=(*FLOOR.command, *flags)), calls, connections, seconds)


@contextmanager
def scripted(answer: Answer) -> Iterator[int]:
    """A server on loopback that answers one piece after the other, and hangs up for want of an answer; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            while (request := peer.recv(1 << 16)) and (reply := answer(request)):
                peer.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield listener.getsockname()[1]
        thread.join(10)


def run_scripted(answer: Answer, call: Call, load: str = "rpc", encoding: str = "msgpack") -> dict[str, float]:
    with scripted(answer) as port, opened(load, encoding, port, [call], 1, 5, Cores.found().load()) as running:
        figures: dict[str, float] = running.run()["calls"][call.method]
        return figures


def test_pipelined_calls_are_counted_and_timed() -> None:
    """Every reply is checked and counted, and the server's CPU is known for each."""
    measured = measure([replace(SUM, slots=16)], connections=8)
    figures = measured.of("sum")
    assert figures["calls"] >= 8 * 16
    assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["max_us"]
    assert measured.cpu.workers > 0


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("result", "expected another result"),
        ("msgid", "expected the msgid of an open call"),
        ("twice", "expected the msgid of an open call"),
        ("error", "expected a reply without an error"),
    ],
)
def test_a_wrong_reply_is_noticed(how: str, complaint: str) -> None:
    """One wrong, foreign, doubled or failed reply in a hundred makes the run fail instead of a figure."""
    with pytest.raises(BenchError, match=complaint):
        measure([SUM], 1, 5, "--corrupt", how)


CLIENTS = ["bare_load", "client_load", "bare_aio_load", "aio_load"]


@pytest.mark.parametrize("slots", [1, 16])
@pytest.mark.parametrize("load", CLIENTS)
def test_clients_are_loads(load: str, slots: int) -> None:
    """Each client's calls, one by one and together, are counted and timed, and so is its own CPU."""
    with Stage(Cores.found()) as stage:
        measured = stage.measure(replace(FLOOR, load=load), [replace(SUM, slots=slots)], 1, 0.05)
    assert measured.of("sum")["calls"] >= slots
    assert measured.of("sum")["p50_us"] > 0
    assert measured.report["cpu_seconds"] > 0


@pytest.mark.parametrize("how", ["result", "error"])
@pytest.mark.parametrize("slots", [1, 16])
@pytest.mark.parametrize("load", CLIENTS)
def test_a_wrong_reply_to_a_client_is_noticed(load: str, slots: int, how: str) -> None:
    """One wrong or failed reply in a hundred makes the run fail instead of a figure."""
    peer = replace(FLOOR, load=load, command=(*FLOOR.command, "--corrupt", how))
    with Stage(Cores.found()) as stage, pytest.raises(BenchError):
        stage.measure(peer, [replace(SUM, slots=slots)], 1, 5)


def test_a_lost_connection_is_noticed() -> None:
    """A server that hangs up with calls unanswered is no fast server."""
    with pytest.raises(BenchError, match="closed by the server"):
        run_scripted(lambda request: b"", SUM)


@pytest.mark.parametrize("size", [1, 1000, 70_000, 1 << 20])
def test_payloads_come_back_whole(size: int) -> None:
    """Results longer than any buffer are compared to the last byte."""
    value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert measure([Call("echo", (value,), value, slots=2)], connections=2).of("echo")["calls"] >= 4


def test_a_result_wrong_in_its_last_byte_is_noticed() -> None:
    """Results are compared to the end, not by their length."""
    value = b"x" * 100_000
    with pytest.raises(BenchError, match="expected another result"):
        measure([Call("echo", (value,), value[:-1] + b"y")])


def test_a_message_can_be_sent_in_pieces() -> None:
    """A request of 5,000 bytes in pieces of 100, 1 ms apart, takes its fifty milliseconds and is answered."""
    value = list(range(1000, 2600))
    call = Call("echo", (value,), value, limit=2, piece=100, piece_interval_us=1000)
    figures = measure([call], seconds=5).of("echo")
    assert figures["calls"] == 2
    assert 40_000 < figures["p50_us"] < 200_000


def test_a_limit_ends_the_run() -> None:
    """A bounded number of calls is done exactly, long before the time is up."""
    figures = measure([replace(SUM, slots=7, limit=1000)], connections=3, seconds=30).of("sum")
    assert figures["calls"] == 1000
    assert figures["seconds"] < 10


def test_paced_calls_keep_their_pace() -> None:
    """Two slots, a call each every 5 ms for 100 ms, are forty calls at most, however fast the server is."""
    assert 2 <= measure([replace(SUM, interval_us=5000)], connections=2, seconds=0.1).of("sum")["calls"] <= 44


def test_others_are_served_beside_a_client_that_never_reads() -> None:
    """The deaf client's calls go out, nobody waits for their replies, and the run ends in time."""
    text = "x" * 1000
    deaf = Call("echo", (text,), text, slots=4, count=1, is_deaf=True, name="deaf")
    measured = measure([replace(SUM, first=1, count=2), deaf], connections=3, seconds=0.2)
    assert measured.of("sum")["calls"] > 10
    assert measured.of("deaf")["calls"] > 10


def test_latency_is_the_servers() -> None:
    """A server that takes 20 ms a call is reported with 20 ms at the median, within a percent and its scheduling."""

    def slowly(request: bytes) -> bytes:
        time.sleep(0.02)
        return bytes(msgpack.packb([1, msgpack.unpackb(request)[1], None, 3]))

    figures = run_scripted(slowly, replace(SUM, limit=5))
    assert 19_800 <= figures["p50_us"] < 100_000


@pytest.mark.parametrize("body", ['{"id": %d, "error": null, "result": 3}', '{"id": %d, "error": null, "result": 4}'])
def test_http_replies_are_checked(body: str) -> None:
    """JSON over HTTP is checked like the rest: status, length, id and result."""

    def answer(request: bytes) -> bytes:
        text = body % int(request.partition(b'"id": ')[2].partition(b",")[0])
        return f"HTTP/1.1 200 OK\r\nServer: test\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()

    if "3}" in body:
        assert run_scripted(answer, replace(SUM, limit=5), "http", "json")["calls"] == 5
    else:
        with pytest.raises(BenchError, match="expected another result"):
            run_scripted(answer, replace(SUM, limit=5), "http", "json")


def test_old_encoding_has_no_bin_and_no_str8() -> None:
    """msgpack-rpc-python 0.4.1 speaks the MessagePack of before: raw bytes, of 16 bits' length from 32 on."""
    assert encode(Call("echo", (b"x" * 40,), b"x" * 40), "old-msgpack")[1][:3] == b"\xda\x00\x28"


def test_nothing_is_left_behind() -> None:
    """When a measurement fails, the server that was started is ended too."""
    seen = []
    with pytest.raises(RuntimeError), Stage(Cores.found()) as stage:
        seen += stage.server(FLOOR).worker_pids()
        raise RuntimeError
    assert seen
    assert not any(psutil.pid_exists(pid) for pid in seen)


def test_a_master_has_its_workers_replaced() -> None:
    """Its warden stays, and is no worker."""
    with Stage(Cores.found()) as stage:
        server = stage.server(replace(with_workers(2), command=(sys.executable, "-m", "rpccluster", "-c", "{config}")))
        before = server.worker_pids()
        os.kill(server.pid, signal.SIGHUP)
        server.await_others(set(before))
        assert len(before) == len(server.worker_pids()) == 2


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A peer that ends at once is a failure with its last words, not a wait."""
    broken = replace(FLOOR, name="broken", command=("{python}", "-c", "raise SystemExit('no such thing')"))
    with Stage(Cores.found()) as stage, pytest.raises(BenchError, match=r"broken ended with 1: no such thing"):
        stage.server(broken)
