"""What systemd is told by a real cluster: ready, reloading, the main process after an upgrade, stopping, and life."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_systemd import MadeUpSystemd, Unit

from rpccluster.testing import is_alive, wait_until


@pytest.fixture(params=["path", "abstract"])
def systemd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MadeUpSystemd]:
    """One that hears at a path, or at an abstract name."""
    made = MadeUpSystemd(tmp_path, notify=request.param)
    yield made
    made.close()


@pytest.fixture
def unit(systemd: MadeUpSystemd, tmp_path: Path) -> Iterator[Unit]:
    """A cluster of one worker, not started yet."""
    made = Unit(systemd, tmp_path, {"number_workers": 1})
    yield made
    made.stop()


def microseconds() -> int:
    """Of the clock that systemd compares with."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_the_life_of_a_unit(systemd: MadeUpSystemd, unit: Unit) -> None:
    """Each state by the main process alone, so NotifyAccess=main is enough, also after an upgrade."""
    before = microseconds()
    unit.start(are_ready=False)
    first = systemd.main_pid
    ready = systemd.hear_main("READY")
    address = unit.address
    assert ready == {"READY": "1", "MAINPID": str(first), "STATUS": f"Serving at {address} (generation 1)"}

    unit.signal(signal.SIGHUP)
    reloading = systemd.hear_main("RELOADING")
    assert before < int(reloading["MONOTONIC_USEC"]) < microseconds()
    assert systemd.hear_main("READY") == {"READY": "1", "STATUS": f"Serving at {address} (generation 2)"}

    unit.write_config(backlog="many")
    before = microseconds()
    unit.signal(signal.SIGHUP)
    assert before < int(systemd.hear_main("RELOADING")["MONOTONIC_USEC"]) < microseconds()
    refused = systemd.hear_main("READY")["STATUS"]
    assert refused.startswith("Reload failed: ")
    assert "backlog" in refused
    unit.write_config(backlog=100)

    assert unit.run("upgrade").returncode == 0
    assert systemd.hear_main("MAINPID")["MAINPID"] == str(unit.wait_upgraded(first))
    assert systemd.main_pid not in (0, first)
    wait_until(lambda: not is_alive(first))
    assert unit.run("reload", "--all").returncode == 0
    systemd.hear_main("RELOADING")
    assert systemd.hear_main("READY")["STATUS"] == f"Serving at {address} (generation 4)"

    second = systemd.main_pid
    unit.signal(signal.SIGTERM)
    assert systemd.hear_main("STOPPING") == {"STOPPING": "1", "STATUS": "Stopping"}
    wait_until(lambda: not is_alive(second))


FUSSY = """
class Fussy:
    def price(self):
        return 1

    def settings_check(self, new, changed):
        if new["price"] == "much":
            raise ValueError("too much")
"""


def test_a_push_of_settings(systemd: MadeUpSystemd, unit: Unit) -> None:
    """Is told as a reload is, whether it comes into force or is refused."""
    unit.write_module("fussy", FUSSY)
    unit.write_section("settings", {"price": "1"})
    unit.write_config(service="fussy:Fussy")
    unit.start()
    systemd.hear_main("READY")
    for price, code, status in (("2", 0, "Serving at "), ("much", 1, "config set settings.price=much failed: worker ")):
        before = microseconds()
        assert unit.run("config", "set", f"settings.price={price}").returncode == code
        assert before < int(systemd.hear_main("RELOADING")["MONOTONIC_USEC"]) < microseconds()
        assert systemd.hear_main("READY")["STATUS"].startswith(status)


def test_signs_of_life(systemd: MadeUpSystemd, unit: Unit) -> None:
    """From the main process, while nothing happens; after an upgrade from the new one."""
    systemd.environment["WATCHDOG_USEC"] = "1000000"
    unit.start()
    first = systemd.main_pid
    systemd.hear_main("READY")
    for _ in range(3):
        assert systemd.hear_main("WATCHDOG") == {"WATCHDOG": "1"}
    assert unit.run("upgrade").returncode == 0
    systemd.hear_main("MAINPID")
    wait_until(lambda: not is_alive(first), 40)
    assert systemd.main_pid not in (0, first)
    for _ in range(3):
        assert systemd.hear_main("WATCHDOG") == {"WATCHDOG": "1"}


def test_the_new_master_of_a_failed_upgrade_is_not_the_main_process(systemd: MadeUpSystemd, unit: Unit) -> None:
    """Nobody but the one that was started has told anything."""
    unit.start()
    systemd.hear_main("READY")
    unit.write_config(service="nothing:There")
    assert unit.run("upgrade").returncode == 1
    unit.write_config(service="rpccluster.demo:Demo")
    assert unit.run("reload", "--all").returncode == 0
    notices = [systemd.hear() for _ in range(2)]
    assert [set(notice.fields) for notice in notices] == [
        {"RELOADING", "MONOTONIC_USEC", "STATUS"},
        {"READY", "STATUS"},
    ]
    assert {notice.pid for notice in notices} == {systemd.main_pid}
