"""The store in files, for clusters on one machine: who leads stands in PATH.N, the members in PATH.json. Any process.

All clusters read the same clock, CLOCK_BOOTTIME, so a lease is over for its holder and for everybody else at the same
instant. It stands beside the id of the machine's boot, with which every lease ends. Each change of the lead is a
version of its own (`rpccluster.leading.versions`), so that no process that is stopped keeps another one from leading.
The token never goes back, so a version that cannot be read is never replaced: somebody has to look at it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rpccluster.errors import StoreDown
from rpccluster.leading.shared_file import SharedFile
from rpccluster.leading.store import NOBODY, Standing, boot_ns
from rpccluster.leading.versions import Versions
from rpccluster.system.files import FileWatch
from rpccluster.system.mounts import file_system_of, is_network_file_system

__all__ = ["FileStore"]

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_TRIES = 20  # another cluster has changed the file each time
_ID_BYTES = 8
_LOCK_SHARE = 20  # of a session, for which the members' lock of another process is waited for


@dataclass(frozen=True)
class _Lead:
    """A version: ``holder`` leads with ``token`` until ``until_ns``, unless the machine was booted since."""

    token: int = 0
    holder: str = ""
    boot: str = ""
    until_ns: int = 0
    addresses: tuple[str, ...] = ()

    @classmethod
    def decoded(cls, content: bytes, path: str) -> _Lead:
        """Decode the version at ``path``. Raises `StoreDown`."""
        if not content:
            return cls()
        try:
            found = json.loads(content)
            token, until_ns = found["token"], found["until_ns"]
            if not (isinstance(token, int) and isinstance(until_ns, int) and token >= 0):
                raise TypeError("its token or its end is no number")
            return cls(token, str(found["holder"]), str(found["boot"]), until_ns, tuple(map(str, found["addresses"])))
        except (ValueError, TypeError, KeyError) as error:
            raise StoreDown(
                f"found rubbish in {path}, which says who leads: {error!r}; look at it, or remove it "
                "when no cluster runs"
            ) from None

    def encoded(self) -> bytes:
        return json.dumps({**self.__dict__, "addresses": list(self.addresses)}).encode() + b"\n"

    def is_held(self, boot: str, now_ns: int) -> bool:
        """Return whether somebody leads."""
        return bool(self.holder) and self.boot == boot and now_ns < self.until_ns


class FileStore:
    """One cluster's access to the file at ``path``; a `rpccluster.leading.store.Store`."""

    def __init__(self, path: str, session_seconds: float, addresses: Sequence[str], remembered: bytes = b"") -> None:
        """``addresses`` are this cluster's. Raises `StoreDown` for a file system that other machines write to."""
        kind = file_system_of(path)
        if is_network_file_system(kind):
            raise StoreDown(
                f"found {path} on the file system {kind}, expected one of this machine: leases by its clock"
                " mean nothing to others"
            )
        self.session_seconds = session_seconds
        self._addresses = tuple(addresses)
        self._id = remembered.decode("ascii", "replace") or os.urandom(_ID_BYTES).hex()
        self._boot = _boot_id()
        self._lead = Versions(path, self._id)
        self._list = SharedFile(f"{path}.json", self._id, lock_seconds=session_seconds / _LOCK_SHARE)
        self._own: dict[str, bytes] = {}
        self._listed_until_ns = 0
        self._passes_until_ns = 0  # it has resigned, and lets another one lead
        self._watch = FileWatch()

    @property
    def remembered(self) -> bytes:
        return self._id.encode()

    # -- the lead

    def attend(self) -> Standing:
        with _told(self._lead.path):
            standing = self._stand()
        with contextlib.suppress(OSError, StoreDown):  # next time: a stopped process may hold the members' lock
            self._renew_members()
        return standing

    def _stand(self) -> Standing:
        for _ in range(_TRIES):
            asked_ns = boot_ns()
            found, lead = self._read()
            is_ours = lead.holder == self._id and lead.boot == self._boot
            if not is_ours and lead.is_held(self._boot, asked_ns):
                self._passes_until_ns = 0
                return Standing(lead.token, lead.addresses[0] if lead.addresses else "")
            if not is_ours and asked_ns < self._passes_until_ns:
                return NOBODY
            until_ns = asked_ns + int(self.session_seconds * 1e9)
            token = lead.token if is_ours else lead.token + 1
            new = _Lead(token, self._id, self._boot, until_ns, self._addresses)
            if self._lead.change(found, new.encoded()):
                if not is_ours:
                    self._lead.sweep()
                    self._list.sweep()
                return Standing(token, new.addresses[0] if new.addresses else "", until_ns)
        raise StoreDown(f"other processes change {self._lead.path} all the time")

    def _read(self) -> tuple[bytes, _Lead]:
        """Return the version that says who leads, and what it means; watch it, unless this cluster leads."""
        found = self._lead.read()
        lead = _Lead.decoded(found, self._lead.present)
        if lead.holder != self._id:
            self._watch.follow([self._lead.present])
            found = self._lead.read()  # what has changed before the watch
            lead = _Lead.decoded(found, self._lead.present)
        return found, lead

    def resign(self) -> None:
        self._passes_until_ns = boot_ns() + int(self.session_seconds * 1e9)
        with _told(self._lead.path):
            self._free()

    def _free(self) -> None:
        for _ in range(_TRIES):
            found, lead = self._read()
            if lead.holder != self._id or self._lead.change(found, _Lead(lead.token).encoded()):
                return
        raise StoreDown(f"other processes change {self._lead.path} all the time")

    # -- the members

    def set_member(self, name: str, value: bytes) -> None:
        self._own[name], self._listed_until_ns = value, 0
        with _told(self._list.path):
            self._renew_members()

    def remove_member(self, name: str) -> None:
        self._own.pop(name, None)
        with _told(self._list.path):
            self._write_members({name})

    def members(self) -> dict[str, bytes]:
        with _told(self._list.path):
            entries = self._living(self._list.read(), boot_ns())
        return {name: json.dumps(_without_end(entry)).encode() for name, entry in entries.items()}

    def _renew_members(self) -> None:
        """List this cluster's members for another session, when a good part of the last one is over."""
        if self._own and boot_ns() > self._listed_until_ns - int(self.session_seconds * 2e9 / 3):
            self._write_members(set())

    def _write_members(self, gone: set[str]) -> None:
        for _ in range(_TRIES):
            now_ns = boot_ns()
            until_ns = now_ns + int(self.session_seconds * 1e9)
            found = self._list.read()
            entries = {name: entry for name, entry in self._living(found, now_ns).items() if name not in gone}
            for name, value in self._own.items():
                entries[name] = {**json.loads(value), "boot": self._boot, "until": until_ns / 1e9}
            if self._list.change(found, json.dumps({"members": entries}, indent=1).encode() + b"\n"):
                self._listed_until_ns = until_ns
                return
        raise StoreDown(f"other processes change {self._list.path} all the time")

    def _living(self, content: bytes, now_ns: int) -> dict[str, Any]:
        """Return the entries whose session lives, and those that somebody has written by hand, without an end."""
        try:
            entries = json.loads(content)["members"].items()
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}  # each cluster writes its own entries again
        return {name: entry for name, entry in entries if isinstance(entry, dict) and self._lives(entry, now_ns)}

    def _lives(self, entry: dict[str, Any], now_ns: int) -> bool:
        if "until" not in entry:
            return True
        until = entry["until"]
        return entry.get("boot") == self._boot and isinstance(until, (int, float)) and now_ns < until * 1e9

    # -- the end

    def leave(self) -> None:
        with _told(self._lead.path):
            self._free()
            names, self._own = set(self._own), {}
            if names:
                self._write_members(names)
        self.close()

    def close(self) -> None:
        self._watch.close()
        self._lead.clear()
        self._list.clear()

    def fileno(self) -> int:
        return self._watch.fileno()

    def drain(self) -> None:
        self._watch.drain()


def _without_end(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("boot", "until")}


def _boot_id() -> str:
    with contextlib.suppress(OSError), open(_BOOT_ID, "rb") as file:  # a codec would be loaded, by who may not read it
        return file.read().strip().decode()
    return ""


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Tell an error of the system as `StoreDown`."""
    try:
        yield
    except OSError as error:
        raise StoreDown(f"cannot use {path}: {error.strerror or error}") from error
