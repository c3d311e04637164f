"""zerorpc's own server, as its documentation starts it. A program of its own."""

from __future__ import annotations

from typing import Any

import zerorpc
import zmq


class Methods:
    """What is called."""

    def sum(self, *numbers: float) -> float:
        return sum(numbers)

    def echo(self, value: Any) -> Any:
        return value


if __name__ == "__main__":
    server = zerorpc.Server(Methods())
    server.bind("tcp://127.0.0.1:*")
    print("Listening at:", server._events._socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode(), flush=True)
    server.run()
