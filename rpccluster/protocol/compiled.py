"""The compiled way of clients through requests and replies in their common form; None where there is none.

`rpccluster.protocol._wire` is built where it can be. A process whose environment has RPCCLUSTER_PURE_PYTHON does
without it, so does PyPy, and a checkout in which it was built of other sources: then msgpack does all of it. Chosen
once, at import; any process.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["FORM", "WIRE"]


def _compiled() -> Any:
    if os.environ.get("RPCCLUSTER_PURE_PYTHON"):
        return None
    try:
        from rpccluster.protocol import _wire
    except Exception:  # PyPy raises SystemError for an extension of CPython's
        return None
    return _wire if getattr(_wire, "FORM", 1) == FORM else None


#: Grows when a function of `_wire` changes its form.
FORM = 2
WIRE = _compiled()
