"""What a Redis server is set to do, compared with what queues need of it. Runs in the keeper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rpccluster.queues.redis.link import Away, Link

__all__ = ["Server", "look"]

_OLDEST = 5  # from here on a script that reads the clock may write
_ASKED = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")


class Server(NamedTuple):
    """The version and mode of a server, and its settings, which are empty where it does not tell them."""

    version: str
    mode: str
    settings: Mapping[str, str]

    @property
    def refusal(self) -> str:
        """Why it cannot keep queues; empty if it can."""
        if int(self.version.partition(".")[0] or 0) < _OLDEST:
            return f"found Redis {self.version}, expected {_OLDEST} or later"
        if self.mode == "cluster":
            return "found a node of a Redis Cluster, expected one server: a batch concerns several queues at once"
        return ""

    def warnings(self, durable: str) -> list[str]:
        """Say what ``durable`` asks for and the server does not do, and what it may throw away."""
        if not self.settings:
            return ["Redis does not tell its settings: whether it does what [queues] durable asks for is not known"]
        asked, found = f"[queues] durable = {durable}", []
        is_kept, each = self.settings["appendonly"] == "yes", self.settings["appendfsync"]
        if durable != "os" and not is_kept:
            found.append(f"{asked}, but Redis has appendonly no: its crash loses acknowledged puts")
        elif (durable == "always" and each != "always") or (durable == "second" and each == "no"):
            found.append(f"{asked}, but Redis has appendfsync {each}: its crash may lose acknowledged puts")
        if self.settings["maxmemory"] != "0" and self.settings["maxmemory-policy"] != "noeviction":
            policy = self.settings["maxmemory-policy"]
            found.append(f"Redis has maxmemory-policy {policy}: it may throw items away; queues need noeviction")
        return found


def look(link: Link, until: float) -> Server:
    """Ask a server. Raises `Away`."""
    lines = link.ask(until, "INFO", "server").decode().splitlines()
    info = dict(line.partition(":")[::2] for line in lines if ":" in line)
    settings: dict[str, str] = {}
    try:
        for name in _ASKED:
            _, value = link.ask(until, "CONFIG", "GET", name)
            settings[name] = value.decode()
    except (Away, ValueError):  # renamed, forbidden, or not all of them known
        if not link.is_up:
            raise
        settings.clear()
    return Server(info.get("redis_version", "0"), info.get("redis_mode", ""), settings)
