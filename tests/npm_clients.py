"""MessagePack-RPC clients from npm, as a service's callers may have them; where there is no npm, tests are skipped.

Owns `.node-clients` in the checkout: made once, under a lock, built aside and renamed. The `npm_clients` fixture
gives its folder, in which `node` finds the packages. Test process only.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["npm_clients"]

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / ".node-clients"
PACKAGES = ["msgpack5rpc@1.1.0", "msgpack-rpc-lite@1.0.2", "@ros2jsguy/msgpack-rpc-node@0.2.0"]
PATIENCE_SECONDS = 60


@pytest.fixture(scope="session")
def npm_clients() -> Path:
    """The folder of a project that has the packages."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("found no node and npm, by which clients written in JavaScript are tried")
    try:
        return _made()
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or b""
        pytest.skip(f"clients could not be had from npm: {error}: {output[-300:].decode(errors='replace')}")


def _made() -> Path:
    with open(f"{FOLDER}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not FOLDER.exists():
            aside = FOLDER.with_name(f"{FOLDER.name}.building")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            (aside / "package.json").write_text("{}")
            options = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--loglevel=error"]
            subprocess.run(
                ["npm", "install", *options, *PACKAGES],
                cwd=aside,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=PATIENCE_SECONDS,
            )
            aside.rename(FOLDER)
    return FOLDER
