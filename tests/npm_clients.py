"""Packages from npm: MessagePack-RPC clients, as callers may have them, and axe-core; without npm tests are skipped.

Owns `.node-clients`, `.node-client-example` and `.node-axe` in the checkout: each made once, under a lock, built aside
and renamed. The fixtures give the folder in which `node` finds the packages. Test process only.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["npm_axe", "npm_client_example", "npm_clients"]

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLE = CHECKOUT / "examples" / "node_client" / "package.json"
PACKAGES = [
    "msgpack5rpc@1.1.0",
    "msgpack-rpc-lite@1.0.2",
    "msgpack-rpc-node@0.1.0-alpha.3",
    "@ros2jsguy/msgpack-rpc-node@0.2.0",
    "neovim@5.5.0",
]
AXE = "axe-core@4.10.3"
PATIENCE_SECONDS = 60


@pytest.fixture(scope="session")
def npm_clients() -> Path:
    """The folder of a project that has the clients."""
    return _folder_with(CHECKOUT / ".node-clients", PACKAGES)


@pytest.fixture(scope="session")
def npm_client_example() -> Path:
    """The folder of a project that has what the example of a client needs."""
    needed = json.loads(EXAMPLE.read_text())["dependencies"]
    return _folder_with(CHECKOUT / ".node-client-example", [f"{name}@{version}" for name, version in needed.items()])


@pytest.fixture(scope="session")
def npm_axe() -> str:
    """The script of axe-core, which finds what keeps people from using a page."""
    folder = _folder_with(CHECKOUT / ".node-axe", [AXE])
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def _folder_with(folder: Path, packages: list[str]) -> Path:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("found no node and npm, by which clients written in JavaScript are tried")
    try:
        return _made(folder, packages)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or b""
        pytest.skip(f"clients could not be had from npm: {error}: {output[-300:].decode(errors='replace')}")


def _has(folder: Path, packages: list[str]) -> bool:
    """Whether it was made for these packages, and not for those of an earlier checkout."""
    try:
        return set(json.loads((folder / "package.json").read_text())["wanted"]) == set(packages)
    except (OSError, ValueError, KeyError):
        return False


def _made(folder: Path, packages: list[str]) -> Path:
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _has(folder, packages):
            shutil.rmtree(folder, ignore_errors=True)
            aside = folder.with_name(f"{folder.name}.building")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            (aside / "package.json").write_text(json.dumps({"wanted": packages}))
            options = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--loglevel=error"]
            subprocess.run(
                ["npm", "install", *options, *packages],
                cwd=aside,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=PATIENCE_SECONDS,
            )
            aside.rename(folder)
    return folder
