"""Tries to load a service as a worker would. Runs in a child process that ends afterwards."""

from __future__ import annotations

from gevent import monkey

from rpccluster import system
from rpccluster.config.sections.cluster import Options
from rpccluster.live_settings import Given
from rpccluster.system.processes.launch import enter

__all__ = ["try_service"]


def try_service(options: Options, given: Given) -> None:
    """Patch this process and load the service of ``options``, with the settings ``given``.

    Raises `ServiceNotLoaded`, `SettingsRefused`, `ServiceUnfit`, OSError.
    """
    system.forget_what_is_ours()
    monkey.patch_all()
    from rpccluster.child.settings import ServiceSettings
    from rpccluster.worker.service.loading import load_service
    from rpccluster.worker.service.registry import Registry

    if options.chdir:
        enter(options.chdir)
    service = load_service(options.service, options.pythonpath, ServiceSettings(given))
    Registry(service, 0, lambda function, seconds: function, marked_only=options.expose == "marked")
