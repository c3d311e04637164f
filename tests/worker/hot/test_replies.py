"""The texts of replies that tell of an error."""

from __future__ import annotations

from typing import Any

import pytest

from rpccluster.worker.hot.replies import not_found_text
from rpccluster.worker.service.call_errors import is_misfit


def test_the_words_for_an_unknown_method_are_msgpackrpcs() -> None:
    """With the quotes, whatever the name."""
    assert not_found_text("nope") == "'nope' method not found"
    assert not_found_text("it's") == "'it's' method not found"


def plain(a: int, b: int = 2) -> None: ...


@pytest.mark.parametrize(("params", "misfit"), [([], True), ([1], False), ([1, 2], False), ([1, 2, 3], True)], ids=str)
def test_params_that_do_not_fit_the_signature(params: list[Any], misfit: bool) -> None:
    """Too few, too many."""
    assert is_misfit(plain, params) == misfit


def test_a_builtin_that_tells_no_signature_fits() -> None:
    """Nobody can say otherwise."""
    assert not is_misfit(min, [])


def test_a_method_whose_signature_raises_fits() -> None:
    """What a service's object has to say of itself must not cost the worker a greenlet."""

    class Odd:
        @property
        def __signature__(self) -> object:
            raise RuntimeError("none of yours")

        def __call__(self) -> None: ...

    assert not is_misfit(Odd(), [])
