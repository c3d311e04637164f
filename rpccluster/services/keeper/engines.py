"""Makes the engine that the configuration names. Runs in the keeper; only the one that is wanted is imported."""

from __future__ import annotations

from gevent.monkey import get_original

from rpccluster.config.kept_queues import KeptQueues
from rpccluster.errors import StartError
from rpccluster.queues.engine import Engine

__all__ = ["make_engine"]

_MOST_PASSWORD_BYTES = 64 << 10


def make_engine(kept: KeptQueues, own_path: str) -> Engine:
    """Return the engine. ``own_path`` is that of the keeper's own socket. Raises `StartError` if it cannot be had."""
    return _sqlite(kept) if kept.options.is_file else _redis(kept, own_path)


def _sqlite(kept: KeptQueues) -> Engine:
    from rpccluster.queues.sqlite import SQLiteEngine

    spawn, sleep = get_original("_thread", "start_new_thread"), get_original("time", "sleep")
    return SQLiteEngine(kept.path, kept.options.durable, spawn, sleep=sleep)


def _redis(kept: KeptQueues, own_path: str) -> Engine:
    from rpccluster.queues.redis.address import RedisAddress, keeper_name

    try:
        from rpccluster.queues.redis.engine import RedisEngine
    except ImportError as error:
        raise StartError(f"the engine {kept.options.engine} needs: pip install 'rpccluster[redis]' ({error})") from None
    options = kept.options
    return RedisEngine(
        RedisAddress.parse(options.engine),
        keeper_name(own_path),
        durable=options.durable,
        session_grace=options.session_grace,
        password=_password(options.password_file),
    )


def _password(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as opened:
            return opened.read(_MOST_PASSWORD_BYTES).splitlines()[0].strip()
    except (OSError, ValueError, IndexError) as error:
        raise StartError(f"cannot read password_file {path}: {error}") from None
