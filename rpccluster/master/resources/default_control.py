"""Opens the control socket of a cluster whose configuration names none, at its default path. Runs in the master.

A cluster can do without one, so nothing here is a fault: the log says why there is none.
"""

from __future__ import annotations

import errno
import os

from rpccluster import control_path
from rpccluster.address import UnixAddress
from rpccluster.errors import StartError
from rpccluster.log import logger
from rpccluster.master.resources.listeners import Listener, open_control_listener

__all__ = ["open_default_control"]


def open_default_control(name: str, present: Listener | None) -> Listener | None:
    """Return a control socket called ``name`` in the first folder that can be had; None without one.

    ``present`` is the control socket of an old master, which is kept if it has such a path.
    """
    paths = [os.path.join(folder, name) for folder in control_path.folders()]
    if present is not None and isinstance(present.wanted, UnixAddress) and present.wanted.path in paths:
        return present
    reasons = []
    for path in paths:
        try:
            listener = open_control_listener(path, is_private=True)
        except StartError as error:
            reasons.append(str(error))
            if _is_held(error):
                break  # the other cluster of this configuration has it, and is the one that commands are for
        else:
            control_path.clear_stale(os.path.dirname(path))
            logger.info("Control socket: %s", path)
            return listener
    logger.warning("No control socket: %s", "; ".join(reasons))
    return None


def _is_held(error: StartError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
