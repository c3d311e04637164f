"""A little of what `tests/fuzz.py` does for as long as it is asked to."""

from __future__ import annotations

import fuzz


def test_random_and_mutated_messages() -> None:
    """Nothing escapes but the decoder's own errors, each connection ends, and others are served."""
    done, _ = fuzz.run(seed=20, messages=4000)
    assert done.replies > 100
