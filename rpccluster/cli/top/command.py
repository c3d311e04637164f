"""The subcommand `top`: waits for keys, for news and for another size of the terminal, and draws.

The process that the user starts. rich is imported here alone, and in `drawing.py`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from rpccluster.cli.control import EXIT_USAGE, WHICH_CLUSTER, control_path, fail
from rpccluster.config import Sources
from rpccluster.errors import EXIT_FAULT

if TYPE_CHECKING:
    from rich.live import Live

    from rpccluster.cli.top.fetching import Fetched, Fetcher

__all__ = ["COMMANDS"]


@click.command()
@click.option(
    "-d", "--delay", "seconds", type=click.FloatRange(min=0.1), default=1.0, show_default=True,
    help="seconds between two looks",
)  # fmt: skip
@click.pass_obj
def top(sources: Sources, seconds: float) -> None:
    """Show the cluster live in the terminal.

    Workers, methods, running calls, callers, plugins, pools and queues. It needs rich: pip install 'rpccluster[top]'.
    `status --watch` does without.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        fail("top needs a terminal; `status --watch` writes lines, `status --watch --json` objects", EXIT_USAGE)
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        fail("top needs rich: pip install 'rpccluster[top]'; `status --watch` does without", EXIT_FAULT)
    from rpccluster.cli.top.fetching import Fetcher
    from rpccluster.cli.top.keyboard import Keyboard

    fetcher = Fetcher(control_path(sources), seconds)
    console = Console(highlight=False, markup=False, emoji=False)
    live = Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop")
    with contextlib.suppress(KeyboardInterrupt), Keyboard() as keyboard, live:
        fetcher.start()
        _Screen(live, fetcher).run(keyboard)


COMMANDS = (top,)
top.params.extend(WHICH_CLUSTER)


class _Screen:
    """What is shown now."""

    def __init__(self, live: Live, fetcher: Fetcher) -> None:
        from rpccluster.cli.top.snapshots import History
        from rpccluster.cli.top.state import State

        self._live = live
        self._fetcher = fetcher
        self._history = History()
        self._state = State()
        self._sections: list[Any] = []
        self._is_known = False
        self._failure = ""

    def run(self, keyboard: Any) -> None:
        """Show it until somebody has pressed q."""
        signal.set_wakeup_fd(self._fetcher.wake_descriptor, warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda signum, frame: None)  # it wakes, that is all
        signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))  # so that the terminal is as it was
        while not self._state.is_over:
            self._draw()
            readable, _, _ = select.select([keyboard, self._fetcher.woken], [], [])
            with contextlib.suppress(BlockingIOError):
                os.read(self._fetcher.woken, 4096)
            while not self._fetcher.found.empty():
                self._take(self._fetcher.found.get())
            for key in keyboard.read() if keyboard in readable else ():
                self._press(key)

    def _press(self, key: str) -> None:
        from rpccluster.cli.top.state import arranged, press

        self._state = press(self._state, key, self._sections)
        self._sections = arranged(self._state, self._sections)
        if self._state.asks_for and self._state.stack is None:
            self._fetcher.ask_for_stack(self._state.asks_for)

    def _take(self, found: Fetched) -> None:
        from rpccluster.cli.top.fetching import Failed, Stack
        from rpccluster.cli.top.sections import sections
        from rpccluster.cli.top.state import arranged

        if isinstance(found, Stack):
            if self._state.asks_for:
                title = f"worker {self._state.asks_for}"
                self._state = replace(self._state, stack=f"{title}\n{found}", asks_for=0, first_line=0)
        elif isinstance(found, Failed):
            self._failure = found
        else:
            self._failure = ""
            if not self._state.is_frozen:
                self._history.add(found)
                self._sections = arranged(self._state, sections(self._history))
                self._is_known = True

    def _draw(self) -> None:
        from rich.console import ConsoleDimensions

        from rpccluster.cli.top.drawing import draw, draw_failure

        size = ConsoleDimensions(*os.get_terminal_size(sys.stdout.fileno()))
        self._live.console.size = size  # rich's own look prefers COLUMNS and LINES, which stay as they are
        shown: Any = draw_failure(self._failure or "asking the master …")
        if self._is_known:
            status = self._history.last.status
            shown = draw(self._state, status, self._sections, size, self._failure)
        self._live.update(shown, refresh=True)
