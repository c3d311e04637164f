"""/metrics as production reads it: `promtool` finds nothing to say, and a real Prometheus scrapes it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import SECTIONS, ask, pid, port
from programs import free_port, needed

from rpccluster.testing import RunningCluster, wait_until

NAMES = {
    *("rpccluster_calls_total", "rpccluster_call_duration_seconds", "rpccluster_call_queue_seconds"),
    *("rpccluster_connections", "rpccluster_restarts_total", "rpccluster_limit_hits_total"),
    *("rpccluster_loop_stalls_total", "rpccluster_handovers_total", "rpccluster_handover_seconds"),
    *("rpccluster_settings_version", "rpccluster_leader", "rpccluster_pool_running", "rpccluster_queue_items"),
}
CALLS = 40


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster with a sample of each name, and calls, unknown methods and a moved connection among them."""
    folder = tmp_path_factory.mktemp("seen")
    sections = {
        **SECTIONS,
        "pool:images": {"targets": "math:sqrt", "processes": 1},
        "queue:orders": {},
        "leadership": {"engine": f"file:{folder}/lead"},
    }
    options = {"number_workers": 1, "bind": f"tcp://127.0.0.1:{free_port()}"}
    running = RunningCluster(folder, options, sections=sections)
    try:
        running.start()
        pid(running)
        with running.client() as client:
            for number in range(CALLS):
                client.call("sum", number, 1)
                with contextlib.suppress(Exception):
                    client.call(f"unknown-{number}")
            assert running.run("reload", "--all").returncode == 0
            client.call("sum", 1, 1)
        calls = f'rpccluster_calls_total{{method="sum",outcome="ok"}} {CALLS + 1}\n'.encode()
        wanted = (calls, b'rpccluster_queue_items{queue="orders",state="ready"} 0', b"rpccluster_leader 1\n")
        wait_until(lambda: all(each in ask(port(running, 0), "/metrics").body for each in wanted))
        yield running
    finally:
        running.stop()


def test_promtool_finds_nothing_to_say(seen: RunningCluster) -> None:
    """Names, units, helps and types, by its rules."""
    promtool = needed("promtool")
    text = ask(port(seen, 0), "/metrics").body
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_every_name_is_there_and_no_line_twice(seen: RunningCluster) -> None:
    """Those of the contract; unknown methods are one, whatever they were called; no label tells a process."""

    def text() -> str:
        return ask(port(seen, 0), "/metrics").body.decode()

    def told() -> set[str]:
        return {line.split()[2] for line in text().splitlines() if line.startswith("# TYPE")}

    wait_until(lambda: told() >= NAMES)  # the dispatcher may not have told of its pools yet
    found = text()
    samples = [line.rpartition(" ")[0] for line in found.splitlines() if not line.startswith("#")]
    assert max(Counter(samples).values()) == 1
    assert f'rpccluster_calls_total{{method="other",outcome="error"}} {CALLS}' in found
    assert "unknown-" not in found
    assert "pid=" not in found and "worker=" not in found
    assert len(found) < 100_000


@pytest.fixture
def prometheus(seen: RunningCluster, tmp_path: Path) -> Iterator[int]:
    """The port of a Prometheus that scrapes the cluster each second, and has come to be ready."""
    program, own = needed("prometheus"), free_port()
    target = f"127.0.0.1:{port(seen, 0)}"
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": [target]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    flags = [
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{own}",
    ]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen([program, *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield own
    finally:
        process.terminate()
        process.wait(30.0)


def query(at: int, expression: str) -> list[Any]:
    """What Prometheus answers to an expression; nothing while it starts."""
    address = f"http://127.0.0.1:{at}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    try:
        with urllib.request.urlopen(address, timeout=10.0) as response:
            found: list[Any] = json.load(response)["data"]["result"]
            return found
    except (urllib.error.URLError, ConnectionError):
        return []


def test_a_real_prometheus_scrapes_it(prometheus: int) -> None:
    """It takes every sample, of OpenMetrics, which it asks for; a histogram gives a quantile."""
    found = wait_until(lambda: query(prometheus, 'rpccluster_calls_total{method="sum",outcome="ok"}'))
    assert found[0]["value"][1] == str(CALLS + 1)
    # one scrape may take too long, and the next one will do
    wait_until(lambda: query(prometheus, "up")[0]["value"][1] == "1")
    wait_until(lambda: int(query(prometheus, "scrape_samples_scraped")[0]["value"][1]) > 100)
    quantile = "histogram_quantile(0.9, sum by (le) (rpccluster_call_duration_seconds_bucket))"
    wait_until(lambda: 0.0 < float(query(prometheus, quantile)[0]["value"][1]) < 90.0)
