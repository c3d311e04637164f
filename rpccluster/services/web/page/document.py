"""The whole page, in one file, and the headers that keep anything else out of it. Pure; runs in the page's process.

The policy allows the style and the script that stand in the page, by their sums, and connections to where it came from:
a text of the cluster that was not escaped would still run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any, NamedTuple

from rpccluster.services.web.page.script import SCRIPT
from rpccluster.services.web.page.style import STYLE

__all__ = ["HEADERS", "Parts", "document", "event"]


class Parts(NamedTuple):
    """The parts of the page that change. ``is_old`` says that the master does not answer."""

    summary: str
    is_old: bool
    live: str
    plots: str


def _sum(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


_POLICY = (
    f"default-src 'none'; style-src {_sum(STYLE)}; script-src {_sum(SCRIPT)}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [("Content-Security-Policy", _POLICY), ("Referrer-Policy", "no-referrer"), ("X-Frame-Options", "DENY")]

_ACTIONS = """
<section aria-labelledby="h-act"><h2 id="h-act">Actions</h2><form id="act">
<div><label>Token <input name="token" type="password" autocomplete="off" required></label>
<button name="action" value="reload">Reload</button></div>
<div><label>Group <input name="group" size="14" value="workers"></label>
<label>Processes <input name="processes" size="4" value="+1"></label>
<button name="action" value="scale">Scale</button></div>
<div><label>Plugin <input name="plugin" size="14"></label>
<button name="action" value="plugin.restart">Restart plugin</button></div>
</form><output id="told" form="act"></output></section>"""


def document(title: str, parts: Parts, *, has_actions: bool) -> bytes:
    """Return the page of the cluster ``title``, with everything that is known."""
    shown = escape(title)
    old = ' class="is-old"' if parts.is_old else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{shown} – rpccluster</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>{STYLE}</style></head>
<body{old}><header><h1>{shown}</h1><p id="summary" role="status">{escape(parts.summary)}</p></header>
<main><div id="live">{parts.live}</div>
<section aria-labelledby="h-plots"><h2 id="h-plots">The last hour</h2><div id="plots">{parts.plots}</div></section>{
        _ACTIONS if has_actions else ""
    }</main>
<footer><a href="status.json">The same as JSON</a></footer>
<script>{SCRIPT}</script></body></html>
""".encode()


def event(name: str, value: Any) -> bytes:
    """Return one event of the stream that the script listens to."""
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()
