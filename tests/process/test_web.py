"""The page and the metrics of a running cluster: what is answered, who is refused, and what outlives what."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pages import SECTIONS, TOKEN, MakeCluster, Reply, ask, group, pid, port, raw, tokens
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_text

from rpccluster.testing import RunningCluster, is_alive, wait_until

OPEN = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster with metrics, a page and a plugin, which no test changes."""
    folder = tmp_path_factory.mktemp("seen")
    sections = {**SECTIONS, "plugin:sleeper": {"command": "sleep 1000"}}
    running = RunningCluster(folder, {"number_workers": 2}, sections=sections)
    try:
        running.start()
        pid(running)
        ready = [b'"%s",state="ready"} %d' % each for each in ((b"workers", 2), (b"plugin:sleeper", 1), (b"web", 1))]

        def knows_all() -> bool:
            """Of what was told a moment ago."""
            told = ask(port(running, 0), "/metrics").body
            return all(each in told for each in ready)

        wait_until(knows_all)
        yield running
    finally:
        running.stop()


# -- what is answered


def test_the_page_names_each_worker_before_any_script(seen: RunningCluster) -> None:
    """Slot, pid and state stand in its HTML, and nothing in it comes from elsewhere."""
    reply = ask(port(seen))
    page = reply.body.decode()
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    before_scripts = page.partition("<script")[0]
    for worker in seen.status()["workers"]:
        row = re.search(rf'<tr data-key="worker-{worker["slot"]}-{worker["pid"]}">(.*?)</tr>', before_scripts)
        assert row, worker
        cells = re.sub(r"<[^>]+>", " ", row[1]).split()
        assert cells[:3] == [str(worker["slot"]), str(worker["pid"]), worker["state"]]
    assert "plugin:sleeper" in before_scripts
    assert not re.findall(r"(?:src|href)=\"(?!data:|status\.json)", page)
    assert "'unsafe" not in reply.headers["content-security-policy"]


def test_the_status_is_that_of_the_command(seen: RunningCluster) -> None:
    """The same keys, groups and processes."""
    reply, shown = ask(port(seen), "/status.json"), seen.status()
    assert reply.headers["content-type"] == "application/json"
    assert reply.json.keys() == shown.keys()
    assert reply.json["master"].keys() == shown["master"].keys()
    for told, other in zip(reply.json["groups"], shown["groups"]):
        assert [each["pid"] for each in told["processes"]] == [each["pid"] for each in other["processes"]]


def test_the_metrics_are_read_in_both_formats(seen: RunningCluster) -> None:
    """By the official client's parsers; OpenMetrics where it is asked for, and for HEAD the same length."""
    plain, asked = ask(port(seen, 0), "/metrics"), ask(port(seen, 0), "/metrics", Accept=OPEN)
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert asked.headers["content-type"].startswith(OPEN)
    assert asked.body.endswith(b"# EOF\n")
    for families in (list(read_text(plain.body.decode())), list(read_open(asked.body.decode()))):
        found = {family.name: family for family in families}
        states = {
            (sample.labels["group"], sample.labels["state"]): sample.value
            for sample in found["rpccluster_processes"].samples
        }
        assert "rpccluster_call_duration_seconds" in found
        assert (states["workers", "ready"], states["plugin:sleeper", "ready"], states["web", "ready"]) == (2, 1, 1)
    assert ask(port(seen, 0), "/metrics", "HEAD").body == b""


@pytest.mark.parametrize(
    ("place", "path", "status"),
    [(0, "/", 404), (0, "/status.json", 404), (1, "/metrics", 404), (1, "/nowhere", 404), (1, "/actions/reload", 405)],
)
def test_each_listener_has_its_own_paths(seen: RunningCluster, place: int, path: str, status: int) -> None:
    """The metrics nothing of the page, and the other way round."""
    assert ask(port(seen, place), path).status == status


def test_a_viewer_is_told_what_changes(seen: RunningCluster) -> None:
    """At once everything, then what differs, as events."""
    at = port(seen)
    with socket.create_connection(("127.0.0.1", at), timeout=30.0) as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while b"event: plots" not in received:
            received += sock.recv(65536) or pytest.fail("the stream has ended")
        assert b"text/event-stream" in received
        assert received.index(b"event: summary") < received.index(b"event: live")
        with seen.client() as client:
            client.call("sum", 1, 2)
        received = b""
        while not re.search(rb"event: (live|beat)", received):
            received += sock.recv(65536) or pytest.fail("the stream has ended")


# -- who is refused


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", 403),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", 405),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n" + bytes(200_000), 413),
        (b"POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 65537\r\n\r\n" + bytes(65537), 413),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n11000\r\n" + bytes(69632), 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length : 5\r\n\r\nabcde", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nno header\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: y\rContent-Length: 5\r\n\r\nabcde", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: y\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"\x94\x00\x01\xa3sum\x92\x01\x02\n\n", 400),
    ],
)
def test_what_may_not_be_asked_is_refused(seen: RunningCluster, request_: bytes, status: int) -> None:
    """With its status, and the connection ends; the page goes on."""
    received = raw(port(seen), request_)
    assert received.startswith(b"HTTP/1.1 %d " % status), received[:200]
    assert ask(port(seen)).status == 200


def test_a_body_of_a_gigabyte_is_not_read(seen: RunningCluster) -> None:
    """The answer comes after a fraction of it, the connection ends, and no memory grows."""
    at, process = port(seen), pid(seen)
    before = resident(process)
    with socket.create_connection(("127.0.0.1", at), timeout=30.0) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n")
        sent = 0
        with pytest.raises(OSError):
            while sent < 1 << 30:
                sent += sock.send(bytes(1 << 20))
    assert sent < 64 << 20
    assert resident(process) < before + (20 << 20)


def resident(process: int) -> int:
    """The resident memory of a process in bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_scrapers_that_never_read_hold_up_nobody(seen: RunningCluster) -> None:
    """Hundreds that ask again and again and read nothing, and hundreds that send half a request."""
    at = port(seen, 0)
    request_ = b"GET /metrics HTTP/1.1\r\n\r\n" * 500
    silent = []
    try:
        for number in range(300):
            sock = socket.create_connection(("127.0.0.1", at), timeout=30.0)
            silent.append(sock)
            sock.setblocking(False)
            with contextlib.suppress(OSError):  # one of the first may have been closed for the next ones
                sock.send(request_ if number % 3 else b"GET /metr")
        assert ask(at, "/metrics").status == 200
    finally:
        for sock in silent:
            sock.close()


def test_there_is_always_a_place_for_one_more(seen: RunningCluster) -> None:
    """Beyond the most connections the one that was silent longest goes."""
    at = port(seen, 0)
    many = [socket.create_connection(("127.0.0.1", at), timeout=30.0) for _ in range(600)]
    try:
        assert ask(at, "/metrics").status == 200
        with contextlib.suppress(ConnectionResetError):
            assert many[0].recv(1) == b""
    finally:
        for sock in many:
            sock.close()


# -- what outlives what


def test_a_restart_refuses_no_connection(make_cluster: MakeCluster) -> None:
    """A kill, a TERM, a reload that changes the section, an upgrade: every request is answered."""
    running = make_cluster(sections=SECTIONS, number_workers=1).start()
    first = pid(running)
    at = port(running)
    failures: list[BaseException] = []
    replies: list[Reply] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            try:
                replies.append(ask(at, "/status.json", Connection="close"))
            except (ConnectionRefusedError, TimeoutError) as error:
                failures.append(error)
            except (OSError, http.client.HTTPException):
                pass  # of a process that was killed while it answered

    looker = threading.Thread(target=look)
    looker.start()
    try:
        os.kill(first, signal.SIGKILL)
        second = pid(running, first)
        os.kill(second, signal.SIGTERM)
        third = pid(running, first, second)
        running.write_section("web", {**SECTIONS["web"], "hosts": "other.example"})
        assert running.run("reload").returncode == 0
        fourth = pid(running, first, second, third)
        wait_until(lambda: ask(at, Host="other.example").status == 200)
        assert running.run("upgrade").returncode == 0
        pid(running, first, second, third, fourth)
        count = len(replies)
        wait_until(lambda: len(replies) > count)
    finally:
        is_over.set()
        looker.join()
    assert not failures
    assert {reply.status for reply in replies} <= {200, 503}


def test_a_reload_brings_moves_and_takes_the_page(make_cluster: MakeCluster) -> None:
    """Its sections come, change their address, share one, and go; no worker is touched."""
    running = make_cluster(number_workers=1).start()
    workers = running.worker_pids()
    assert group(running) == {}
    running.write_section("metrics", SECTIONS["metrics"])
    assert running.run("reload").returncode == 0
    first, at = pid(running), port(running)
    assert ask(at, "/metrics").status == 200
    running.write_section("web", {"bind": "tcp://127.0.0.1:0"})
    assert running.run("reload").returncode == 0
    second = pid(running, first)
    assert port(running, 0) == at
    assert ask(port(running)).status == 200
    shared = f"tcp://127.0.0.1:{at}"
    running.write_section("metrics", {"bind": shared})
    running.write_section("web", {"bind": shared})
    assert running.run("reload").returncode == 0
    third = pid(running, first, second)
    assert (ask(at, "/metrics").status, ask(at).status, len(group(running)["listeners"])) == (200, 200, 1)
    running.write_section("web", None)
    assert running.run("reload").returncode == 0
    pid(running, first, second, third)
    assert ask(at).status == 404
    running.write_section("metrics", None)
    assert running.run("reload").returncode == 0
    assert group(running) == {}
    with pytest.raises(ConnectionRefusedError):
        ask(at)
    assert running.worker_pids() == workers


def test_it_stops_last(make_cluster: MakeCluster) -> None:
    """It waits for nobody and nobody for it; while all others stop the page tells of it."""
    sections = {**SECTIONS, "plugin:slow": {"command": "sh -c 'trap : TERM; sleep 1000 & wait; sleep 1'"}}
    running = make_cluster(sections=sections, number_workers=1).start()
    process, at = pid(running), port(running)
    running.signal(signal.SIGTERM)
    with socket.socket() as probe:
        wait_until(lambda: probe.connect_ex(("127.0.0.1", at)) != 0 or not is_alive(process))
    assert running.wait() == 0
    log = running.log_text()
    assert log.rindex("Retiring worker") < log.rindex("exiting (pid") and "Retiring web" in log
    assert log.rindex("Retiring web") > log.rindex("Worker exiting")


def test_a_master_that_does_not_answer_is_told(make_cluster: MakeCluster) -> None:
    """Metrics are served all the same, with the age of what is old; the page says so."""
    running = make_cluster(sections=SECTIONS, number_workers=1).start()
    pid(running)
    at, metrics = port(running), port(running, 0)
    assert ask(at, "/status.json").status == 200
    master = running.status()["master"]["pid"]
    os.kill(master, signal.SIGSTOP)
    try:
        wait_until(lambda: b"does not answer" in ask(at).body)
        reply = ask(metrics, "/metrics").body.decode()
        age = re.search(r"^rpccluster_status_age_seconds (\S+)$", reply, re.MULTILINE)
        assert age and float(age[1]) > 3.0
    finally:
        os.kill(master, signal.SIGCONT)
    wait_until(lambda: b"does not answer" not in ask(at).body)


# -- actions


@pytest.fixture(scope="module")
def acting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Reply]]:
    """Asks the page of a cluster for an action, with a token."""
    tmp_path = tmp_path_factory.mktemp("acting")
    web = {**SECTIONS["web"], "actions": "true", "token_file": tokens(tmp_path)}
    sections = {"web": web, "plugin:sleeper": {"command": "sleep 1000"}}
    running = RunningCluster(tmp_path, {"number_workers": 1}, sections=sections)

    def act(name: str, body: str = "{}", token: str = TOKEN.replace(" ", "-"), **headers: str) -> Reply:
        return ask(port(running), f"/actions/{name}", "POST", body.encode(), Authorization=f"Bearer {token}", **headers)

    act.running = running  # type: ignore[attr-defined]
    try:
        running.start()
        pid(running)
        yield act
    finally:
        running.stop()


def test_who_has_a_token_may_act(acting: Callable[..., Reply]) -> None:
    """It is done when it is answered; the log says who has asked."""
    running: RunningCluster = acting.running  # type: ignore[attr-defined]
    assert acting("scale", '{"group": "workers", "processes": "+1"}').status == 200
    assert len(running.worker_pids()) == 2
    assert acting("reload").status == 200
    (before,) = (each for each in running.status()["groups"] if each["name"] == "plugin:sleeper")
    assert acting("plugin.restart", '{"name": "sleeper"}').status == 200
    (after,) = (each for each in running.status()["groups"] if each["name"] == "plugin:sleeper")
    assert before["processes"][0]["pid"] != after["processes"][0]["pid"]
    assert acting("plugin.restart", '{"name": "nobody"}').status == 409
    assert "asked at the page from 127.0.0.1 by alice" in running.log_text()
    assert TOKEN.replace(" ", "-") not in running.log_text()


@pytest.mark.parametrize(
    ("name", "body", "headers", "status"),
    [
        ("reload", "{}", {"token": "a-token-of-many-byteS"}, 401),
        ("reload", "{}", {"token": ""}, 401),
        ("reload", "{}", {"Origin": "http://evil.example"}, 403),
        ("reload", "{}", {"Host": "evil.example"}, 421),
        ("reload", "[]", {}, 400),
        ("reload", '{"al": 1}', {}, 400),
        ("reload", '{"all": 1}', {}, 400),
        ("scale", '{"group": "workers"}', {}, 400),
        ("scale", '{"group": "workers", "processes": 0}', {}, 409),
        ("scale", '{"group": "workers", "processes": "99999"}', {}, 409),
        ("plugin.restart", '{"name": 5}', {}, 400),
        ("plugin.restart", "[" * 60_000, {}, 400),
        ("stop", "{}", {}, 404),
        ("upgrade", "{}", {}, 404),
        ("config.set", "{}", {}, 404),
    ],
)
def test_what_may_not_be_done(
    acting: Callable[..., Reply], name: str, body: str, headers: dict[str, str], status: int
) -> None:
    """Without a token, from elsewhere, by a body that says something else, or what the page never does."""
    assert acting(name, body, **headers).status == status
