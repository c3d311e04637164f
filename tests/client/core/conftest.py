"""What tests of the client's decisions share: a clock that stands still."""

from __future__ import annotations

import pytest


class Clock:
    """Stands still until the test moves it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()
