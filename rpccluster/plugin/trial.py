"""Tries a plugin's settings as its process would. Runs in a child process that ends afterwards."""

from __future__ import annotations

import contextlib

from rpccluster import system
from rpccluster.child.settings import ServiceSettings
from rpccluster.child.users_code import put_on_path
from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.live_settings import Given
from rpccluster.plugin.function import find_function
from rpccluster.system.processes.launch import enter

__all__ = ["try_settings"]


def try_settings(options: PluginOptions, given: Given) -> None:
    """Import the function of ``options``, and ask it and its module about the settings ``given``.

    What cannot be imported is no fault here: the plugin waits then, and the rest runs. Raises `SettingsRefused`, and
    OSError.
    """
    system.forget_what_is_ours()
    settings = ServiceSettings(given)
    if options.chdir:
        enter(options.chdir)
    put_on_path(options.pythonpath)
    found = None
    with contextlib.suppress(Exception, SystemExit):
        found = find_function(options)
    if found is not None:
        settings.take_declaration(options.run, found)
        settings.ask()
