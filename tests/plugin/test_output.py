"""What a plugin logs reaches its master, though the pipe is full at the moment."""

from __future__ import annotations

import os
import threading

from rpccluster.log.lines import lost_lines
from rpccluster.plugin.output import PatientOutlet


def test_a_line_waits_for_room() -> None:
    """No other line need come after it."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    filled = 0
    try:
        while True:
            filled += os.write(write_end, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(write_end, True)
    reader = threading.Timer(0.1, lambda: os.read(read_end, filled))
    reader.start()
    outlet = PatientOutlet(write_end, lost_lines)
    outlet.write(b"the line\n")
    assert not outlet.is_waiting
    reader.join()
    assert os.read(read_end, 100) == b"the line\n"
    os.close(read_end)
    os.close(write_end)
