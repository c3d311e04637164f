"""One timeout carried through many steps."""

from __future__ import annotations

import time

from rpccluster.system import Deadline


def test_a_deadline_counts_down_to_zero() -> None:
    """Never below; None is for ever."""
    deadline = Deadline.after(60.0)
    assert 59 < (deadline.left() or 0) <= 60
    assert not deadline.is_over()
    assert Deadline(time.monotonic() - 1).left() == 0.0
    assert Deadline.after(0.0).is_over()
    assert Deadline.after(None).left() is None
    assert not Deadline.after(None).is_over()
