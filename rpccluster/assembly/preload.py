"""What the master imports on its workers' behalf before it forks them: a boot takes CPU from those who serve.

Holds nothing that knows gevent, nor makes a lock when it is imported: gevent would find that unpatched. Imported in
the master.
"""

from __future__ import annotations

import calendar  # noqa: F401
import faulthandler  # noqa: F401
import gc  # noqa: F401
import grp  # noqa: F401
import importlib.metadata  # noqa: F401
import locale  # noqa: F401
import pickle  # noqa: F401
import platform
import pprint  # noqa: F401
import queue  # noqa: F401
import subprocess  # noqa: F401
import zipfile  # noqa: F401
from email import message  # noqa: F401

__all__: list[str] = []

platform.uname()  # which is kept
