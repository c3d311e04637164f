"""The things that only one master at a time may own: the pidfile's lock, the control socket, the listeners' paths.

A new master has copies of the old one's from its start, but owns them only once it has taken over. Then it also gives
up those that its own configuration no longer names. Until then it owns only those that it has opened itself. Runs in
the master.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, Union

from rpccluster.address import UnixAddress
from rpccluster.errors import StartError
from rpccluster.log import logger
from rpccluster.master.resources.listeners import Listener, close_listeners, open_control_listener
from rpccluster.master.resources.pidfile import Pidfile
from rpccluster.master.resources.plugin_listeners import all_of

__all__ = ["ControlSocket", "Owned", "Ownership"]

#: A thing that belongs to one master at a time.
Owned = Union[Listener, Pidfile]


class ControlSocket(Protocol):
    """The server of the control socket, as this module needs it; ``listener`` is None if none is configured."""

    listener: Listener | None

    def listen_anew(self, listener: Listener) -> None:
        """Accept at the socket of ``listener`` from now on."""

    def stop_listening(self, *, is_last: bool) -> None:
        """Close the listener; with ``is_last`` its path goes, too."""


class Ownership:
    """The things that one master owns. Its listeners are the cluster's own collections, which a reload may change."""

    def __init__(
        self,
        pidfile: Pidfile | None,
        control: ControlSocket,
        listeners: list[Listener],
        inherited: Sequence[Owned] = (),
        plugin_listeners: dict[str, list[Listener]] | None = None,
    ) -> None:
        """``inherited`` are the old master's things, of which this one has copies, used or not."""
        self._plugin_listeners = {} if plugin_listeners is None else plugin_listeners
        self.pidfile = pidfile
        self.control = control
        self._listeners = listeners
        self._theirs = list(inherited)  # until we take over
        self._has_left = False

    def _held(self) -> Iterator[Owned | None]:
        yield from (self.pidfile, self.control.listener, *self._listeners, *all_of(self._plugin_listeners))

    def bind_control_again(self, *, is_private: bool) -> None:
        """Bind the control socket again, whose path somebody has removed, as it was opened. Raises `StartError`."""
        listener = self.control.listener
        assert listener is not None and isinstance(listener.wanted, UnixAddress)
        self.control.listen_anew(open_control_listener(listener.wanted.path, is_private=is_private))

    def take_over(self, pid: int) -> None:
        """Own everything, since the old master has left."""
        theirs, self._theirs = self._theirs, []
        self.sign(pid)
        held = list(self._held())
        for each in theirs:
            if each not in held:
                _end(each)

    def sign(self, pid: int) -> None:
        """Write ``pid`` into the pidfile: the one of the two masters that stays."""
        if self.pidfile is not None:
            try:
                self.pidfile.write(pid)
            except StartError as error:  # too late for a fault, and the lock is ours
                logger.error("%s", error)

    def leave(self) -> None:
        """Close our copies, since a new master owns everything, and unlink nothing."""
        self._has_left = True
        close_listeners([*self._listeners, *all_of(self._plugin_listeners)], is_last=False)
        self._listeners.clear()
        self._plugin_listeners.clear()
        self.control.stop_listening(is_last=False)
        if self.pidfile is not None:
            self.pidfile.close()
            self.pidfile = None

    def close_listeners(self) -> None:
        """Close the cluster's listeners, so that this master accepts no more connections; plugins keep theirs."""
        for listener in self._listeners:
            listener.close(is_last=listener not in self._theirs)
        self._listeners.clear()

    def give_back(self) -> None:
        """Leave nothing behind, so that the next start finds everything free."""
        if self._has_left:
            return
        self.close_listeners()
        for listener in all_of(self._plugin_listeners):
            listener.close(is_last=listener not in self._theirs)
        self._plugin_listeners.clear()
        if self.control.listener not in self._theirs:
            self.control.stop_listening(is_last=True)
        if self.pidfile is not None and self.pidfile not in self._theirs:
            _end(self.pidfile)


def _end(owned: Owned) -> None:
    if isinstance(owned, Pidfile):
        owned.clear()
        owned.close()
    else:
        owned.close(is_last=True)
