"""The hot room: bytes to calls, calls to replies, replies to bytes. Each request comes through here, and nothing else.

A request is received and decoded (`inbox.py`), waits for its turn (`room.py`), runs (`runners.py`, driven by the loop
in `engine.py`) and is answered (`outbox.py`). What is no plain request, or fails, takes the slow path (`slow_path.py`,
`replies.py` for errors); some are answered later (`parked.py`). Inside, every part may touch every other. Outside of
this folder nobody imports its files, but these names alone, so that another build of the same names, such as a compiled
one, can take its place. States, deadlines, limits that are told, and handover stay outside.

==================  ================================================================================================
`Engine`            runs all calls of a worker; ``connect`` makes an inbox and an outbox for a socket
`Inbox`             one socket's input: start and stop it, put its calls off, take its content along
`Outbox`            one socket's output: flush it, take its content along, ask how many calls are pending
`Listener`          hears what happened to one socket's input and output: a connection
`Happened`          what a listener may hear
`HIGH_WATER_BYTES`  unsent output above which a connection's calls are to be put off
==================  ================================================================================================
"""

from rpccluster.worker.hot.engine import Engine
from rpccluster.worker.hot.inbox import Inbox
from rpccluster.worker.hot.outbox import HIGH_WATER_BYTES, Outbox
from rpccluster.worker.hot.room import Happened, Listener

__all__ = ["HIGH_WATER_BYTES", "Engine", "Happened", "Inbox", "Listener", "Outbox"]
