"""Tries to load a service as a worker would. Runs in a child process that ends afterwards."""

from __future__ import annotations

from gevent import monkey

from rpccluster import system
from rpccluster.config.sections.cluster import Options
from rpccluster.system.launch import enter

__all__ = ["try_service"]


def try_service(options: Options) -> None:
    """Patch this process and load the service of ``options``. Raises `ServiceNotLoaded`, `ServiceUnfit`, OSError."""
    system.forget_what_is_ours()
    monkey.patch_all()
    from rpccluster.worker.service.loading import load_service
    from rpccluster.worker.service.registry import Registry

    if options.chdir:
        enter(options.chdir)
    Registry(load_service(options.service, options.pythonpath), 0, lambda function, seconds: function)
