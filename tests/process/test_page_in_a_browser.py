"""The page in Chromium: it loads, follows a worker that dies and comes back, and everybody can use it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from pages import SECTIONS, TOKEN, pid, port, tokens

from rpccluster.testing import RunningCluster, wait_until

PHONE, DESK = 390, 1280
ROWS = (
    "[...document.querySelectorAll('[data-key=workers] tbody tr')].map(row => row.innerText.split(/\\s+/).slice(0, 3))"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, which has said nothing on its console at the end."""
    made = Browser(tmp_path_factory.mktemp("browser"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster of most kinds of processes."""
    folder = tmp_path_factory.mktemp("seen")
    web = {**SECTIONS["web"], "actions": "true", "token_file": tokens(folder)}
    sections = {
        "web": web,
        "plugin:sleeper": {"command": "sleep 1000", "description": "sleeps"},
        "plugin:nightly": {"command": "true", "schedule": "0 3 1 1 *"},
        "plugin:failing": {"command": "false", "restart_delay": 1000},
        "pool:images": {"processes": 2, "targets": "math:sqrt"},
        "queue:orders": {},
    }
    running = RunningCluster(folder, {"number_workers": 3, "proc_name": "shop & sons"}, sections=sections)
    try:
        running.start()
        pid(running)
        yield running
    finally:
        running.stop()


def rows(cluster: RunningCluster) -> list[list[str]]:
    """Slot, pid and state of each worker, as the page shall show them."""
    return [[str(each["slot"]), str(each["pid"]), each["state"]] for each in cluster.status()["workers"]]


def test_it_follows_a_worker_that_dies_and_comes_back(browser: Browser, seen: RunningCluster) -> None:
    """By its script, without a load; where nothing has changed the same node of the document stays."""
    browser.open(f"http://127.0.0.1:{port(seen)}/")
    browser.wait(f"{ROWS}.length === 3")
    browser.wait(f"JSON.stringify({ROWS}) === {json.dumps(json.dumps(rows(seen), separators=(',', ':')))}")
    browser.eval("window.kept = document.querySelector('[data-key^=worker-0-]'); true")
    victim = seen.status()["workers"][1]["pid"]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in [worker["pid"] for worker in seen.status()["workers"]])
    wait_until(lambda: [row[2] for row in rows(seen)] == ["ready"] * 3)
    browser.wait(f"JSON.stringify({ROWS}) === {json.dumps(json.dumps(rows(seen), separators=(',', ':')))}")
    assert browser.eval("window.kept.isConnected")
    browser.wait("document.querySelector('#summary').textContent.endsWith('Not ready: plugin:failing.')")
    assert browser.complaints == []


def test_it_finds_a_new_process_of_the_page(browser: Browser, seen: RunningCluster) -> None:
    """The stream ends with the process; the script comes back by itself, and its console is quiet."""
    browser.open(f"http://127.0.0.1:{port(seen)}/")
    browser.wait("!!document.querySelector('[data-key^=web-]')")
    first = pid(seen)
    os.kill(first, signal.SIGTERM)
    second = pid(seen, first)
    browser.wait(
        f"!!document.querySelector('[data-key=web-0-{second}]') && !document.body.classList.contains('is-old')"
    )
    assert browser.complaints == []


def test_it_shows_everything_without_scripts(browser: Browser, seen: RunningCluster) -> None:
    """Each worker, plugin and pool, as it was when the page was loaded."""
    browser.set_scripts(run=False)
    try:

        def shows_all() -> bool:
            browser.open(f"http://127.0.0.1:{port(seen)}/")
            found: bool = browser.eval(ROWS) == rows(seen)
            return found

        wait_until(shows_all)
        text = browser.eval("document.body.innerText")
        assert {"plugin:sleeper", "plugin:nightly", "images", "web"} <= set(text.split())
    finally:
        browser.set_scripts(run=True)


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK], ids=["phone", "desk"])
def test_everybody_can_use_it(
    browser: Browser, seen: RunningCluster, npm_axe: str, tmp_path: Path, width: int, is_dark: bool
) -> None:
    """axe-core finds nothing: roles, names, headings, contrast; and a phone need not scroll sideways."""
    browser.open(f"http://127.0.0.1:{port(seen)}/", width=width, height=844, is_dark=is_dark)
    browser.wait("document.querySelectorAll('[data-key=workers] tbody tr').length === 3")
    browser.eval(npm_axe + "; true")
    found = browser.eval(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
        ".then(found => found.violations.map(each => [each.id, each.nodes.map(node => node.html.slice(0, 200))]))"
    )
    assert found == []
    assert browser.eval("document.documentElement.scrollWidth") <= width
    folder = Path(os.environ.get("RPCCLUSTER_SCREENSHOTS") or tmp_path)
    browser.screenshot(folder / f"page-{width}-{'dark' if is_dark else 'light'}.png")
    assert browser.complaints == []


def test_its_buttons_act(browser: Browser, seen: RunningCluster) -> None:
    """With the token; without it the reason is shown."""
    browser.open(f"http://127.0.0.1:{port(seen)}/")
    browser.eval("document.querySelector('[name=token]').value = 'wrong'; true")
    browser.eval("document.querySelector('[value=scale]').click(); true")
    browser.wait("document.querySelector('#told').textContent.includes('token')")
    assert [each for each in browser.complaints if "401" not in each] == []
    browser.complaints.clear()
    browser.eval(f"document.querySelector('[name=token]').value = {json.dumps(TOKEN.replace(' ', '-'))}; true")
    browser.eval("document.querySelector('[value=scale]').click(); true")
    browser.wait("document.querySelector('#told').textContent === 'Done.'")
    browser.wait(f"{ROWS}.length === 4")
    assert browser.complaints == []
