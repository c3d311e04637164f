"""etc/Dockerfile, as far as it can be run without Docker: its command as pid 1, by its account, on a read-only root."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rpccluster import Client
from rpccluster.testing import wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
NAMESPACES = ["unshare", "-mpf", "--mount-proc", "--kill-child"]

#: Makes of this machine's root what a container sees: nothing can be written but the volume, and its user is no root.
#: /srv has the service, and what the image would have installed, under paths that this user may enter.
PREPARE = """
set -e
mount -t tmpfs tmpfs /srv
mkdir /srv/installed
for each in bin packages checkout python; do mkdir /srv/installed/$each; done
cp "$SERVICE" /srv/shop.py
printf '#!/bin/sh\\nexec /srv/installed/python/%s -m rpccluster "$@"\\n' "$INTERPRETER" > /srv/installed/bin/rpccluster
chmod -R a+rX,go-w /srv
chmod a+x /srv/installed/bin/rpccluster
mount --bind "$PYTHON" /srv/installed/python
mount --bind "$PACKAGES" /srv/installed/packages
mount --bind "$CHECKOUT" /srv/installed/checkout
mount -t tmpfs tmpfs /run
install --directory --owner "$ACCOUNT" --mode 0700 "$VOLUME"
mount --bind "$VOLUME" "$VOLUME"
for each in /srv /run /; do mount -o remount,bind,ro "$each"; done
cd "$FOLDER"
exec "$@"
"""

SHOP = """
import os, subprocess

class Shop:
    def count(self, name):
        return len(name)

    def who(self):
        return [os.getuid(), os.getgid(), os.getppid(), os.getcwd()]

    def write(self, folder):
        with open(os.path.join(folder, "it"), "w") as file:
            file.write("it")

    def leave_orphan(self, until):
        subprocess.run(["sh", "-c", "(while [ ! -e $0 ]; do sleep 0.02; done) >/dev/null 2>&1 &", until])
"""


class Image(NamedTuple):
    """What the Dockerfile says of the image."""

    environment: dict[str, str]
    volume: str
    folder: str
    account: str
    entrypoint: list[str]
    command: list[str]
    health: list[str]


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile with what follows it, on one line."""
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


def image() -> Image:
    told = dict(instructions((CHECKOUT / "etc" / "Dockerfile").read_text()))
    return Image(
        dict(setting.split("=", 1) for setting in told["ENV"].split()),
        told["VOLUME"],
        told["WORKDIR"],
        told["USER"],
        json.loads(told["ENTRYPOINT"]),
        json.loads(told["CMD"]),
        json.loads(told["HEALTHCHECK"].partition("CMD ")[2]),
    )


class Container:
    """A running image, in namespaces of its own. Its network is the test's own, too."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.image = image()
        (folder / "shop.py").write_text(SHOP)
        self.log = folder / "log"
        installed = "/srv/installed"
        self._inside = {
            "PATH": f"{installed}/bin:/usr/bin:/bin",
            "LD_LIBRARY_PATH": f"{installed}/python/lib",
            "PYTHONPATH": f"{installed}/checkout:{installed}/packages",
            **self.image.environment,
        }
        account = self.image.account
        self._become = ["setpriv", f"--reuid={account}", f"--regid={account}", "--clear-groups", "--no-new-privs"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*NAMESPACES, "sh", "-c", PREPARE, "sh", *self._command([*self.image.entrypoint, *words])],
                env={
                    **os.environ,
                    "SERVICE": str(folder / "shop.py"),
                    "PYTHON": sys.base_prefix,
                    "INTERPRETER": os.path.relpath(os.path.realpath(sys.executable), sys.base_prefix),
                    "PACKAGES": sysconfig.get_paths()["purelib"],
                    "CHECKOUT": str(CHECKOUT),
                    "ACCOUNT": account,
                    "VOLUME": self.image.volume,
                    "FOLDER": self.image.folder,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _command(self, words: list[str]) -> list[str]:
        settings = [f"{name}={value}" for name, value in self._inside.items()]
        return [*self._become, "env", "-i", *settings, *words]

    def children(self, pid: int) -> list[int]:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def first(self) -> int:
        """The pid of pid 1, as it is outside."""
        (pid,) = self.children(self.process.pid)
        return pid

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Do as "docker exec" does."""
        enter = ["nsenter", f"--target={self.first}", "--mount", "--pid", f"--wd={self.image.folder}"]
        command = [*enter, *self._command(list(words))]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def wait_ready(self) -> None:
        wait_until(lambda: "Worker ready" in self.log.read_text() or self.process.poll() is not None, 40)
        assert self.process.poll() is None, self.log.read_text()


@pytest.fixture
def container(tmp_path: Path, own_network: None) -> Iterator[Container]:
    """One whose service is ours, by the one line that the Dockerfile's comment gives."""
    if subprocess.run([*NAMESPACES, "mount", "-t", "tmpfs", "t", "/srv"], check=False, capture_output=True).returncode:
        pytest.skip("namespaces for processes and mounts are not permitted here")
    words = json.loads(re.findall(r"^#   CMD (.*)$", (CHECKOUT / "etc" / "Dockerfile").read_text(), re.MULTILINE)[0])
    running = Container(tmp_path, *words)
    yield running
    running.process.kill()
    running.process.wait()


def test_the_container_serves_on_a_read_only_root(container: Container) -> None:
    """As pid 1 and as its own account; checked and commanded from inside; it reaps orphans, and ends at TERM."""
    container.wait_ready()
    account = int(container.image.account)
    with Client("127.0.0.1:18800", timeout=30) as client:
        assert client.call("count", "apple") == 5
        assert client.call("who") == [account, account, 1, container.image.folder]
        for folder in ("/", "/srv", "/tmp", "/run"):
            with pytest.raises(Exception, match=r"Read-only file system|Permission denied"):
                client.call("write", folder)
        assert container.run(*container.image.health).returncode == 0
        told = json.loads(container.run("rpccluster", "status", "--json").stdout)
        assert told["master"]["pid"] == 1
        assert "No control socket" not in container.log.read_text()

        before = container.children(container.first)
        client.call("leave_orphan", f"{container.image.volume}/it")
        wait_until(lambda: len(container.children(container.first)) == len(before) + 1)
        client.call("write", container.image.volume)
        wait_until(lambda: container.children(container.first) == before, what="it is reaped")
    os.kill(container.first, signal.SIGTERM)
    assert container.process.wait(30) == 0


def test_the_image_has_what_it_runs() -> None:
    """The command of the image is one of rpccluster's, and a shell has no fault in its steps."""
    found = image()
    assert found.entrypoint == ["rpccluster"]
    done = subprocess.run(
        [sys.executable, "-m", "rpccluster", *found.command, "--check-config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, rest in instructions((CHECKOUT / "etc" / "Dockerfile").read_text()):
        if name == "RUN":
            script = re.sub(r"^(--\S+ )*", "", rest)
            assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0, script


def test_a_build_is_given_what_it_installs() -> None:
    """.dockerignore leaves everything out but what setup.py reads and installs, and licences want."""
    lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
    given = {line[1:] for line in lines if line.startswith("!")}
    assert all((CHECKOUT / name).exists() for name in given)
    read = set(re.findall(r'HERE / "([\w.]+)"', (CHECKOUT / "setup.py").read_text()))
    assert read | {"setup.py", "pyproject.toml", "LICENSE", "rpccluster"} == given
