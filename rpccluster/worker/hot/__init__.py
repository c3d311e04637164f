"""The hot room: bytes to calls, calls to replies, replies to bytes. Every request passes through it, and nothing else.

It is there twice. The Python engine runs everywhere: a request is received and decoded (`inbox.py`), waits for its turn
(`room.py`), runs (`runners.py`, which the loop drives in `engine.py`), and is answered (`outbox.py`). The compiled
engine (`compiled/`) does the same in one pass, and keeps waiting calls as bytes. Both take the slow
path for other messages and failed calls (`slow_path.py`, `replies.py` for errors), and some calls are answered later
(`parked.py`). Inside, every part may touch every other. Other folders import only these names, and none of the files.
States, deadlines, logged limits and handover stay outside.

==================  ================================================================================================
`Engine`            runs all calls of a worker; ``connect`` makes an inbox and an outbox for a socket
`make_engine`       makes the engine that the configuration wants, or that this machine has
`Inbox`             the input of one socket: start and stop it, put its calls off, take its content along
`Outbox`            the output of one socket: flush it, take its content along, ask how many calls are pending
`Listener`          learns what has happened to the input and output of one socket: a connection
`Happened`          the events that a listener may get
`HIGH_WATER_BYTES`  unsent output above which a connection's calls are put off
==================  ================================================================================================
"""

from rpccluster.worker.hot.choice import make_engine
from rpccluster.worker.hot.engine import PythonEngine as Engine
from rpccluster.worker.hot.inbox import Inbox
from rpccluster.worker.hot.outbox import HIGH_WATER_BYTES, Outbox
from rpccluster.worker.hot.room import Happened, Listener

__all__ = ["HIGH_WATER_BYTES", "Engine", "Happened", "Inbox", "Listener", "Outbox", "make_engine"]
