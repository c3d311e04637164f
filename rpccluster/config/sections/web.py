"""The sections ``[metrics]`` and ``[web]``: an endpoint for Prometheus, and a page that shows the cluster. Any process.

Reads no file but that of the tokens. The rest of `rpccluster.config`, etc/web.ini and the documentation follow these
tables. `rpccluster.services.web` is the process that serves both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rpccluster.address import BindAddress, PassedAddress, UnixAddress
from rpccluster.config import values
from rpccluster.config.authkeys import NO_KEYS, KeyFile
from rpccluster.config.checks import Complaint, Machine, UsedPath, check_addresses, check_usable_paths
from rpccluster.config.sections.option import Section, live, option
from rpccluster.config.values import ValueType

__all__ = ["METRICS", "WEB", "MetricsOptions", "Sites", "WebOptions"]

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")


def _read_hosts(text: str) -> tuple[str, ...]:
    hosts = values.items(text)
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise ValueError(text)
    return tuple(host.lower() for host in hosts)


HOSTS = ValueType("names of hosts without a port, such as status.example.org", _read_hosts, ", ".join)


@dataclass(frozen=True)
class MetricsOptions:
    """The options of the endpoint for Prometheus, typed: durations in seconds."""

    bind: tuple[BindAddress, ...] = option(
        values.BIND, (), "addresses at which /metrics is served: tcp://HOST:PORT, unix:///path"
    )
    restart_delay: float = live(values.DURATION, 1.0, "the first pause after failed starts, doubled by each more")
    restart_delay_max: float = live(values.DURATION, 30.0, "the longest such pause in seconds; 0: none")


@dataclass(frozen=True)
class WebOptions:
    """The options of the page, typed: durations in seconds."""

    bind: tuple[BindAddress, ...] = option(
        values.BIND, (), "addresses at which the page is served: tcp://HOST:PORT, unix:///path"
    )
    hosts: tuple[str, ...] = option(
        HOSTS, (), "further names under which browsers reach the page, beside the address of bind and localhost"
    )
    actions: bool = option(values.BOOLEAN, False, "let who has a token reload, scale, and restart plugins")
    token_file: KeyFile = option(  # noqa: RUF009 - it returns a field
        values.KEY_FILE, NO_KEYS, "file of mode 0600 with a line TOKEN or NAME TOKEN for each who may act"
    )
    restart_delay: float = live(values.DURATION, 1.0, "the first pause after failed starts, doubled by each more")
    restart_delay_max: float = live(values.DURATION, 30.0, "the longest such pause in seconds; 0: none")


class Sites(NamedTuple):
    """What the one process of the group ``web`` serves; None stands for a section that there is not."""

    metrics: MetricsOptions | None
    web: WebOptions | None

    @classmethod
    def of(cls, sections: Mapping[str, Any]) -> Sites:
        """Return the two sections among ``sections``."""
        return cls(sections.get(METRICS.name), sections.get(WEB.name))

    def by_header(self) -> dict[str, tuple[BindAddress, ...]]:
        """Return the addresses of each section; one that both name stands in the first alone."""
        metrics = self.metrics.bind if self.metrics else ()
        web = self.web.bind if self.web else ()
        return {METRICS.name: metrics, WEB.name: tuple(each for each in web if each not in metrics)}

    def addresses(self) -> list[BindAddress]:
        """Return all addresses, in the order of their listeners."""
        return [address for bind in self.by_header().values() for address in bind]


def _check_metrics(options: MetricsOptions, machine: Machine, config_path: str | None = None) -> list[Complaint]:
    return list(_bind(options.bind))


def _check_web(options: WebOptions, machine: Machine, config_path: str | None = None) -> list[Complaint]:
    return [*_bind(options.bind), *_tokens(options)]


def _bind(bind: tuple[BindAddress, ...]) -> Iterator[Complaint]:
    if not bind:
        yield Complaint(("bind",), "found nothing, expected an address")
    for address in bind:
        if isinstance(address, PassedAddress):
            yield Complaint(("bind",), f"found {address}, expected another: only workers take what systemd passes")
    sockets = [UsedPath("bind", each.path, True) for each in dict.fromkeys(bind) if isinstance(each, UnixAddress)]
    yield from check_addresses("bind", bind)
    yield from check_usable_paths(sockets)


def _tokens(options: WebOptions) -> Iterator[Complaint]:
    if options.token_file.problem:
        yield Complaint(("token_file",), options.token_file.problem)
    elif options.actions and not options.token_file:
        yield Complaint(("actions", "token_file"), "found true without token_file, expected a file of tokens")


METRICS = Section("metrics", MetricsOptions, _check_metrics, required=("bind",))
WEB = Section("web", WebOptions, _check_web, required=("bind",))
