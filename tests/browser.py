"""Drives Debian's Chromium by its DevTools protocol, over two pipes: no port, no library. Test process only.

A page is asked with expressions of JavaScript. What its console says, and what its scripts throw, is kept.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from programs import needed

__all__ = ["Browser"]

PATIENCE_SECONDS = 60.0
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--mute-audio", "--hide-scrollbars", "--remote-debugging-pipe"),
)


class Browser:
    """A browser with one page, in ``folder``; call `close`."""

    def __init__(self, folder: Path) -> None:
        """Skips the test where there is no Chromium."""
        program = needed("chromium")
        self._folder = folder / "chromium"
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()
        self._process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={self._folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            start_new_session=True,
            preexec_fn=lambda: _become_3_and_4(to_child, from_child),
        )
        os.close(to_child)
        os.close(from_child)
        self._numbers = itertools.count(1)
        self._received = b""
        self._session: dict[str, str] = {}
        self.complaints: list[str] = []  # of the console, and exceptions of scripts
        page = next(each for each in self._do("Target.getTargets")["targetInfos"] if each["type"] == "page")
        attached = self._do("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._do(f"{domain}.enable")

    def open(self, address: str, *, width: int = 1280, height: int = 900, is_dark: bool = False) -> None:
        """Load the page at ``address`` in a window of this size."""
        self._do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        feature = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._do("Emulation.setEmulatedMedia", features=[feature])
        self._do("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def set_scripts(self, *, run: bool) -> None:
        """Let the scripts of pages run from the next `open` on, or not."""
        self._do("Emulation.setScriptExecutionDisabled", value=not run)

    def eval(self, expression: str) -> Any:
        """Return the value of an expression, awaited if it is a promise. Raises RuntimeError if it throws."""
        answer = self._do("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 30.0) -> Any:
        """Wait until an expression is true, and return it."""
        ends_at = time.monotonic() + seconds
        while not (found := self.eval(expression)):
            assert time.monotonic() < ends_at, f"never true: {expression}"
            time.sleep(0.05)
        return found

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        size = self._do("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self._do("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        """End the browser and all its processes, and remove its folder."""
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- the protocol: objects of JSON with a zero byte behind each

    def _do(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        order = {"id": number, "method": method, "params": params, **self._session}
        _write_all(self._out, json.dumps(order).encode() + b"\0")
        ends_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            message = self._receive(ends_at)
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _receive(self, ends_at: float) -> Any:
        while b"\0" not in self._received:
            left = ends_at - time.monotonic()
            assert left > 0 and select.select([self._in], [], [], left)[0], "the browser does not answer"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "the browser has ended"
            self._received += chunk
        text, _, self._received = self._received.partition(b"\0")
        return json.loads(text)

    def _note(self, message: Any) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:1000])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"])[:1000])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry'].get('url', '')}: {params['entry']['text']}")


def _become_3_and_4(reader: int, writer: int) -> None:
    """Give the child the two pipes where Chromium expects them; they may stand at each other's numbers."""
    reader, writer = os.dup(reader), os.dup(writer)
    high_reader, high_writer = os.dup2(reader, 200), os.dup2(writer, 201)
    os.dup2(high_reader, 3)
    os.dup2(high_writer, 4)
    os.closerange(5, 256)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
