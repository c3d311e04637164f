"""Follows the registry in ZooKeeper, by kazoo and its threads. It only reads; its session holds nothing.

kazoo reports a connection late or not at all, so every wait here has an end, and whatever may have been missed is read
again: all names after each reconnection, and the value of a name that was not seen before. A member's name is new at
each start, so its value does not change.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any

from rpccluster.errors import RPCClusterError

__all__ = ["ZooKeeperSource"]

_ANSWER_SECONDS = 5.0  # for an answer of ZooKeeper
_AGAIN_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 0.5  # kazoo's own pause doubles to a minute, which is longer than a session
_LOOK_SECONDS = 30.0  # all names are read again, whatever the watch has told


class ZooKeeperSource:
    """The members below ``path`` at ``hosts``. Raises RPCClusterError if kazoo is not installed."""

    def __init__(self, hosts: str, path: str) -> None:
        try:
            import kazoo.client  # noqa: F401
        except ImportError:
            raise RPCClusterError(
                "the registry in ZooKeeper needs kazoo: install it by `pip install 'rpccluster[zookeeper]'`"
            ) from None
        self._hosts = hosts
        self._folder = f"{path}/members"

    def follow(self, tell: Callable[[Mapping[str, bytes]], None], fail: Callable[[str], None], end: Event) -> None:
        """Tell the list whenever it has changed, and of failures, until ``end``."""
        news = Event()
        client = _client(self._hosts)
        client.add_listener(lambda state: news.set())
        values: dict[str, bytes] = {}
        try:
            client.start_async()
            while not end.is_set():
                try:
                    _await_connection(client, news, end)
                    news.clear()
                    values = self._read(client, values, news)
                    tell(values)
                except Exception as error:  # kazoo's errors have several roots
                    fail(str(error) or type(error).__name__)
                    end.wait(_AGAIN_SECONDS)
                    continue
                _wait(news, end)
        finally:
            with contextlib.suppress(Exception):
                client.stop()
                client.close()

    def _read(self, client: Any, known: Mapping[str, bytes], news: Event) -> dict[str, bytes]:
        from kazoo.exceptions import NoNodeError

        children = client.get_children_async(self._folder, watch=lambda event: news.set())
        try:
            names = children.get(timeout=_ANSWER_SECONDS)
        except NoNodeError:
            client.exists_async(self._folder, watch=lambda event: news.set()).get(timeout=_ANSWER_SECONDS)
            return {}
        asked = {name: client.get_async(f"{self._folder}/{name}") for name in names if name not in known}
        values = {name: known[name] for name in names if name in known}
        for name, answer in asked.items():
            with contextlib.suppress(NoNodeError):  # it has gone meanwhile, which the watch tells
                values[name] = answer.get(timeout=_ANSWER_SECONDS)[0]
        return values


def _await_connection(client: Any, news: Event, end: Event) -> None:
    """Wait for a connection. Raises TimeoutError if there is none in time."""
    waited = 0.0
    while not client.connected and not end.is_set():
        if waited >= _ANSWER_SECONDS:
            raise TimeoutError("there is no connection to ZooKeeper")
        news.clear()
        if not client.connected:
            news.wait(_AGAIN_SECONDS)
            waited += _AGAIN_SECONDS


def _wait(news: Event, end: Event) -> None:
    """Wait for news, but not for ever, and not beyond ``end``."""
    waited = 0.0
    while not end.is_set() and waited < _LOOK_SECONDS and not news.wait(_AGAIN_SECONDS):
        waited += _AGAIN_SECONDS


def _client(hosts: str) -> Any:
    from kazoo.client import KazooClient
    from kazoo.retry import KazooRetry

    logger = logging.getLogger("rpccluster.client.kazoo")
    logger.setLevel(logging.ERROR)  # every attempt to connect is a warning to it
    retry = KazooRetry(max_tries=-1, delay=0.05, max_delay=_LONGEST_RETRY_SECONDS)
    return KazooClient(hosts, connection_retry=retry, command_retry=KazooRetry(max_tries=0), logger=logger)
