"""Rules in a real cluster: per key and user, live, with rates over all workers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from rpccluster import Client, RemoteError
from rpccluster.testing import RunningCluster, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
SECONDS, CALLERS = 10, 16 if FULL_SCALE else 6
RATE = 100

WEB, ADMIN = "web-key-of-16-bytes", "admin-key-of-16-bytes"


@pytest.fixture(params=["python", "compiled"])
def ruled(make_cluster, request) -> Callable[..., RunningCluster]:
    """A cluster with two keys and rules."""

    def start(rules: dict[str, str], **options: object) -> RunningCluster:
        running: RunningCluster = make_cluster(engine=request.param, sections={"access": rules}, **options)
        keys = running.folder / "keys"
        keys.write_text(f"web {WEB}\nadmin {ADMIN}\n")
        keys.chmod(0o600)
        running.write_config(authkey_file=keys, unix_socket=running.folder / "demo.sock")
        return running.start()

    return start


def test_rules_of_keys_and_users(ruled) -> None:
    """Each may call what its rules allow; a reload changes them for connections that are there."""
    running = ruled({"key:web": "call s*, call nothing", "key:admin": "call *", f"uid:{os.getuid()}": "call pid"})
    address = running.address
    with Client(address, authkey=("web", WEB)) as web, Client(address, authkey=("admin", ADMIN)) as admin:
        assert web.call("sum", 1, 2) == 3 and admin.call("echo", 1) == 1
        with pytest.raises(RemoteError, match="no rule allows you to call echo") as raised:
            web.call("echo", 1)
        assert raised.value.type == "Forbidden"
        assert {name for name in web.call("rpc.discover") if not name.startswith("rpc.")} == {"sum", "sleep", "spin"}
        with Client(f"unix://{running.options['unix_socket']}") as local:
            assert local.call("pid") > 0
            with pytest.raises(RemoteError, match="no rule allows you to call sum"):
                local.call("sum", 1)
        pids = running.worker_pids()
        running.write_section("access", {"key:web": "call echo", "key:admin": "call *"})
        reloaded = running.run("reload")
        assert reloaded.returncode == 0 and "access.key:web: call s*, call nothing -> call echo" in reloaded.stdout
        wait_until(lambda: call_or_none(web, "echo", 1), what="the new rule holds")
        assert running.worker_pids() == pids
        changed = running.run("config", "set", "access.key:web=call sum")
        assert changed.returncode == 0, changed.stderr
        wait_until(lambda: call_or_none(web, "sum", 1), what="the rule that was set holds")
        running.write_section("access", None)
        assert running.run("reload").returncode == 0
        wait_until(lambda: call_or_none(web, "pid"), what="there are no rules any more")
    assert "key:web = call nothing of [access] allows no method" in running.log_text()


def call_or_none(client: Client, method: str, *params: object) -> object:
    try:
        return client.call(method, *params)
    except RemoteError:
        return None


class Flood:
    """Callers that want more than their rate, over connections of their own."""

    def __init__(self, address: str, key: object, seconds: float) -> None:
        self._began = time.monotonic()
        self._until = self._began + seconds
        self.passed = 0
        self.wrong: list[Exception] = []
        self._lock = threading.Lock()
        self.threads = [threading.Thread(target=self._call, args=(address, key)) for _ in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def join(self) -> float:
        """Wait until all callers have ended. Returns how long they have called."""
        for thread in self.threads:
            thread.join()
        return time.monotonic() - self._began

    def _call(self, address: str, key: object) -> None:
        try:
            with Client(address, authkey=key) as client:
                while time.monotonic() < self._until:
                    for passed in self._calls(client):
                        with self._lock:
                            self.passed += passed
        except Exception as error:
            self.wrong.append(error)

    def _calls(self, client: Client) -> list[bool]:
        futures = [client.call_async("echo", 1) for _ in range(5)]
        found = []
        for future in futures:
            error = future.exception()
            if error is not None and not str(error).startswith("RateLimited: retry after "):
                raise error
            found.append(error is None)
        time.sleep(0.005)
        return found


def test_a_rate_holds_over_all_workers_and_connections_and_a_handover(ruled) -> None:
    """As many calls pass as the rate says, while all workers are replaced: they make up for a burst of those before."""
    running = ruled({"key:web": f"call echo {RATE}/s"}, number_workers=4)
    flood = Flood(running.address, ("web", WEB), SECONDS)
    reloaded = running.run("reload", "--all")
    lasted = flood.join()
    assert flood.wrong == [] and reloaded.returncode == 0
    least = SECONDS * RATE - 60 if FULL_SCALE else SECONDS * RATE / 2  # shares wait for workers that boot slowly
    assert least <= flood.passed <= lasted * RATE + 50
