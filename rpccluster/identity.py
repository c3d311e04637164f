"""The identity of a connection's peer: the key it has proved, its certificate's name, its user. Data; any process.

`rpccluster.worker.connections` finds it out, and passes it on with a connection that moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

__all__ = ["NOBODY", "Identity", "identity_of"]


class Identity(str):
    """Who a peer is: ``key:NAME`` of the key it has proved, ``cert:NAME`` of its certificate, ``uid:N`` of its user.

    As text it is the first of these that is known. ``names`` has all that are.
    """

    __slots__ = ("names",)

    names: tuple[str, ...]

    def __new__(cls, names: Iterable[str] = ()) -> Identity:
        """Make the identity of a peer with these ``names``, the strongest first."""
        known = tuple(names)
        made = super().__new__(cls, known[0] if known else "")
        made.names = known
        return made

    def __getnewargs__(self) -> tuple[Any]:  # copied and pickled whole
        return (self.names,)


@lru_cache(maxsize=1024)
def identity_of(*names: str) -> Identity:
    """Return the identity with these names: the same object for the same names, as there may be many connections."""
    return Identity(names)


#: The identity of a peer about which nothing is known.
NOBODY = identity_of()
