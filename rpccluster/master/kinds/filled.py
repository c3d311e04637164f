"""The options of a section, filled with those that it has from ``[cluster]``. Runs in the master."""

from __future__ import annotations

from typing import Callable, Generic, TypeVar

from rpccluster.config.sections.cluster import Options

__all__ = ["Filled"]

S = TypeVar("S")


class Filled(Generic[S]):
    """Fills options, and keeps the result until the section's or the cluster's are others."""

    def __init__(self, fill: Callable[[S, Options], S]) -> None:
        self._fill = fill
        self._kept: tuple[S, Options, S] | None = None

    def options(self, own: S, of_cluster: Options) -> S:
        """Return ``own`` with what it has from ``of_cluster``."""
        kept = self._kept
        if kept is None or kept[0] is not own or kept[1] is not of_cluster:
            self._kept = kept = (own, of_cluster, self._fill(own, of_cluster))
        return kept[2]
