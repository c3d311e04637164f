"""The future of msgpack-rpc-python, over one of `concurrent.futures`."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

from rpccluster.compat.msgpackrpc import error as errors
from rpccluster.compat.msgpackrpc.dialect import old_error

__all__ = ["Future"]


class Future:
    """The outcome of `Client.call_async`. The thread that receives the reply, or `join`, runs its callback."""

    def __init__(self, future: concurrent.futures.Future[Any]) -> None:
        self._future = future
        self._lock = threading.RLock()  # held while the callback runs: join returns after it
        self._callback: Callable[[Future], object] | None = None
        self._error_handler: Callable[[Any], object] | None = None
        self._result_handler: Callable[[Any], object] | None = None

    def join(self) -> None:
        """Wait for the end of the call, and for the callback."""
        concurrent.futures.wait([self._future])
        self._call_back()

    def get(self) -> Any:
        """Wait for the end. Returns the result, or raises the error; a handler gets it instead, if attached."""
        self.join()
        error = self._exception()
        if error is not None and self._error_handler is not None:
            self._error_handler(self.error)
            return None
        if error is not None:
            raise error
        if self.result is None or self._result_handler is None:
            return self.result
        self._result_handler(self.result)
        return None

    @property
    def result(self) -> Any:
        """The result; None until the end, and after an error."""
        return self._future.result() if self._future.done() and self._exception() is None else None

    @property
    def error(self) -> Any:
        """The reply's error as it came, or the `TimeoutError` or `TransportError`; None until the end, and if none."""
        error = self._exception()
        if error is None or isinstance(error, (errors.TimeoutError, errors.TransportError)):
            return error
        return error.args[0]

    def attach_callback(self, callback: Callable[[Future], object]) -> None:
        """Have ``callback(future)`` called at the end, or at once if the call has ended."""
        self._callback = callback
        self._future.add_done_callback(lambda _: self._call_back())

    def attach_error_handler(self, handler: Callable[[Any], object]) -> None:
        """Have `get` pass the error to a handler instead of raising it."""
        self._error_handler = handler

    def attach_result_handler(self, handler: Callable[[Any], object]) -> None:
        """Have `get` pass the result to a handler instead of returning it."""
        self._result_handler = handler

    def _exception(self) -> Exception | None:
        error = self._future.exception() if self._future.done() else None
        return old_error(error) if isinstance(error, Exception) else None

    def _call_back(self) -> None:
        with self._lock:
            callback, self._callback = self._callback, None
            if callback is not None:
                callback(self)
