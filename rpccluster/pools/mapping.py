"""`map` of a pool: many tasks, a bounded number of them at once, their results in order. Runs where it is submitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rpccluster.pools.future import TaskFuture
from rpccluster.pools.progress_bar import Bar, no_bar, progress_bar

__all__ = ["mapped"]


def mapped(
    submit: Callable[..., TaskFuture],
    target: str,
    iterables: tuple[Iterable[Any], ...],
    look_ahead: int,
    options: dict[str, Any],
    progress: bool | str = False,
) -> Iterator[Any]:
    """Submit a task for each item of ``iterables``, as `map` calls; at most ``look_ahead`` whose results are not taken.

    The first ones are submitted at once. Raises the failure of a task when its turn comes; then, and when the iterator
    is closed, those that were submitted and have not ended are cancelled.
    """
    arguments = zip(*iterables)
    pending: deque[TaskFuture] = deque()
    for args in arguments:
        pending.append(submit(target, *args, **options))
        if len(pending) >= look_ahead:
            break
    bar = progress_bar(progress, target, iterables) if progress else no_bar()
    return _results(submit, target, arguments, pending, options, bar)


def _results(
    submit: Callable[..., TaskFuture],
    target: str,
    arguments: Iterator[tuple[Any, ...]],
    pending: deque[TaskFuture],
    options: dict[str, Any],
    bar: Bar,
) -> Iterator[Any]:
    try:
        with bar:
            while pending:
                result = pending[0].result()
                pending.popleft()
                bar.advance()
                for args in arguments:
                    pending.append(submit(target, *args, **options))
                    break
                yield result
    finally:
        for future in pending:
            future.cancel()
