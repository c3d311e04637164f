"""One timeout carried through many steps."""

from __future__ import annotations

import time

from rpccluster.system import Deadline


def test_a_deadline_is_over_in_time() -> None:
    """None is for ever."""
    assert not Deadline.after(60.0).is_over()
    assert Deadline(time.monotonic() - 1).is_over()
    assert Deadline.after(0.0).is_over()
    assert not Deadline.after(None).is_over()
