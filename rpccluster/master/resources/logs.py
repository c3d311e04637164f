"""Opens the log files that the options name. The master opens them, because it may; every process writes them.

What a log file is, and how it is reopened, is in `rpccluster.log`.
"""

from __future__ import annotations

from rpccluster.config.accounts import identity_of
from rpccluster.config.sections.cluster import Options
from rpccluster.errors import StartError
from rpccluster.log import LogFiles

__all__ = ["are_alike", "open_logs"]


def open_logs(options: Options) -> LogFiles:
    """Open the log files of ``options``. Raises `StartError`, and leaves none open then."""
    identity = identity_of(options.user, options.group)
    logs = LogFiles(
        log_path=options.log_file,
        access_path="" if options.access_log == "off" else options.access_log,
        owner=(identity.uid, identity.gid) if identity else None,
        umask=options.umask,
    )
    try:
        logs.open()
    except OSError as error:
        raise StartError(f"cannot open the log {error.filename}: {error.strerror}") from error
    return logs


def are_alike(one: Options, other: Options) -> bool:
    """Return whether both name the same log files."""
    return (one.log_file, one.access_log, one.umask) == (other.log_file, other.access_log, other.umask)
