"""Where a process is, as the kernel tells it: for one that cannot be asked. Any process."""

from __future__ import annotations

__all__ = ["where_stuck"]


def where_stuck(pid: int) -> str:
    """Return the state of the process ``pid``, its wait channel and its system call. Source: proc(5).

    The kernel tells only part of it where the reader may not trace the process.
    """
    found = [f"state {_state(pid)}"]
    channel, call = _read(pid, "wchan"), _read(pid, "syscall").partition(" ")[0]
    if channel not in ("", "0"):
        found.append(f"waiting in {channel}")
    if call.isdigit():
        found.append(f"system call {call}")
    return ", ".join(found)


def _state(pid: int) -> str:
    for line in _read(pid, "status").splitlines():
        name, _, value = line.partition(":")
        if name == "State":
            return value.strip()
    return "unknown"


def _read(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}", encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
