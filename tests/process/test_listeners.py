"""Where a cluster listens: TCP, IPv6 and Unix sockets, ports that the kernel chooses, and what is left afterwards."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat

import pytest

from rpccluster import Client
from rpccluster.testing import wait_until


def has_ipv6() -> bool:
    """Whether this machine has the loopback address ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def serves(address: str) -> bool:
    """Whether a call there is answered."""
    with Client(address) as client:
        return client.call("sum", 1, 2) == 3


def test_all_kinds_of_addresses_at_once(cluster):
    """Every address of ``bind``, and ``unix_socket``, serves; the log and ``status`` show the ports chosen."""
    paths = [f"unix:///tmp/rpccluster-{os.getpid()}-{number}.sock" for number in range(2)]
    bind = ["127.0.0.1:0", "tcp://localhost:0", *(["tcp://[::1]:0"] if has_ipv6() else []), paths[0]]
    running = cluster(bind=", ".join(bind), unix_socket=paths[1].removeprefix("unix://"))
    listeners = running.status()["master"]["listeners"]
    assert len(listeners) == len(bind) + 1
    assert listeners[-2:] == paths
    for address in listeners:
        assert serves(address), address
        assert f"Listening at: {address} ({running.master_pid})" in running.log_text()
    for address in listeners[:-2]:
        assert re.fullmatch(r"tcp://(127\.0\.0\.1|\[::1\]):[1-9]\d*", address)
    assert len(set(listeners)) == len(listeners)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    for path in paths:
        assert not os.path.exists(path.removeprefix("unix://"))


@pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")
def test_ipv6_callers_are_named_so(cluster):
    """The log shows a caller's IPv6 address in brackets."""
    running = cluster(bind="tcp://[::1]:0", number_workers=1, access_log=True)
    assert serves(running.address)
    wait_until(lambda: re.search(r"\] \[::1\]:\d+ sum ", running.log_text()))


@pytest.mark.parametrize(("mode", "expected"), [(None, 0o600), ("0666", 0o666), ("0640", 0o640)])
def test_modes_of_unix_sockets(make_cluster, mode, expected):
    """``unix_socket_mode``, whatever the umask; the control socket is always the owner's alone."""
    made = make_cluster(number_workers=1, unix_socket_mode=mode)
    made.write_config(unix_socket=made.folder / "it.sock", umask="0077")
    made.start()
    for name, permissions in (("it.sock", expected), ("control.sock", 0o600)):
        assert stat.S_IMODE((made.folder / name).stat().st_mode) == permissions
    assert serves(f"unix://{made.folder}/it.sock")


def test_a_stale_socket_file_is_replaced(make_cluster):
    """What a killed master left behind does not block the next start."""
    made = make_cluster(number_workers=1)
    made.write_config(unix_socket=made.folder / "it.sock")
    made.start()
    os.kill(made.master_pid, signal.SIGKILL)
    made.wait()
    assert (made.folder / "it.sock").is_socket()
    made.start()
    assert serves(f"unix://{made.folder}/it.sock")


def test_folders_of_sockets_and_logs_are_made(make_cluster):
    """The program makes the folders it was told to put its files in."""
    made = make_cluster(number_workers=1)
    run = made.folder / "run" / "deep"
    made.write_config(
        pidfile=run / "a" / "it.pid", control_socket=run / "b" / "c.sock", unix_socket=run / "c" / "it.sock",
        log_file=run / "d" / "it.log", access_log=run / "e" / "access.log",
    )  # fmt: skip
    made.start()
    assert serves(f"unix://{run}/c/it.sock")
    wait_until(lambda: " sum " in (run / "e" / "access.log").read_text())


def test_the_port_of_a_stopped_cluster_is_free_at_once(make_cluster):
    """Connections that linger do not block the next start."""
    first = make_cluster(number_workers=1).start()
    address = first.address
    client = Client(address)
    assert client.call("sum") == 0
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    second = make_cluster(number_workers=1, bind=address).start()
    assert serves(address)
    assert second.address == address
    client.close()
