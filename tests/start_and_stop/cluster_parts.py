"""Whole clusters, with all the parts of a master and its workers in them, as the shared test handles them."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

from rpccluster.testing import RunningCluster, wait_until

from .part import SECONDS, Part

__all__ = ["CLUSTER_PARTS"]

SERVICE = "from rpccluster.demo import Demo as Service\n"


class ARunningCluster(Part):
    """As tests start and stop one."""

    takes_time = True
    is_slow = True

    def make(self) -> None:
        options = {"unix_socket": self.folder / "service.sock", "service": "given:Service"}
        self.cluster = RunningCluster(self.folder, options)
        self.cluster.write_module("given", SERVICE)

    def start(self) -> None:
        self.cluster.start()

    def begin(self) -> None:
        self.cluster.start(are_ready=False)

    def stop(self) -> None:
        self.cluster.stop()
        for path in self.folder.glob("*.sock"):  # it was killed: the next start would find them
            path.unlink()
        (self.folder / "cluster.pid").unlink(missing_ok=True)

    def clean(self) -> None:
        if hasattr(self, "cluster"):
            self.cluster.stop()  # a test that fails leaves no process behind, either

    def failures(self) -> Mapping[str, Callable[[], AbstractContextManager[object]]]:
        return {
            "its service cannot be imported": self.service_is_broken,
            "its workers end at once": self.workers_end,
            "its port is taken": self.port_is_taken,
        }

    def service_is_broken(self) -> AbstractContextManager[None]:
        return self.service("raise ImportError('no')")

    def workers_end(self) -> AbstractContextManager[None]:
        return self.service("import os; os._exit(5)")

    @contextlib.contextmanager
    def service(self, text: str) -> Iterator[None]:
        make = self.make

        def make_broken() -> None:
            make()
            self.cluster.write_module("given", text)

        self.make = make_broken  # type: ignore[method-assign]
        yield
        self.make = make  # type: ignore[method-assign]

    @contextlib.contextmanager
    def port_is_taken(self) -> Iterator[None]:
        make = self.make
        with socket.create_server(("127.0.0.1", 0)) as server:

            def make_there() -> None:
                make()
                self.cluster.write_config(bind=f"tcp://127.0.0.1:{server.getsockname()[1]}")

            self.make = make_there  # type: ignore[method-assign]
            yield
            self.make = make  # type: ignore[method-assign]


class AClusterToldToStop(ARunningCluster):
    """As its user stops it: by TERM, also twice; at its start as soon as it can be asked for its pid."""

    def stop(self) -> None:
        process = self.cluster._process
        if process is not None:
            for _ in range(2):
                process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)
            assert self.cluster.left_behind() == []

    def begin(self) -> None:
        super().begin()
        pidfile = self.folder / "cluster.pid"
        wait_until(lambda: pidfile.exists() and pidfile.read_text(), SECONDS)


class AClusterToldToQuit(AClusterToldToStop):
    """By INT."""

    def stop(self) -> None:
        process = self.cluster._process
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait(SECONDS)
            assert self.cluster.left_behind() == []


class AWorker(Part):
    """One more in a cluster that has one: started by TTIN, told to retire by TTOU, even while it boots."""

    takes_time = True
    is_slow = True

    def prepare(self) -> None:
        self.cluster = RunningCluster(self.folder, {"number_workers": 1, "service": "given:Service"})
        self.cluster.write_module("given", SERVICE)
        self.cluster.start()
        (self.first,) = self.cluster.worker_pids()

    def start(self) -> None:
        self.begin()
        self.cluster.wait_ready(5.0, number_workers=2)

    def begin(self) -> None:
        self.cluster.signal(signal.SIGTTIN)
        wait_until(lambda: self.cluster.status()["master"]["number_workers"] == 2, SECONDS)

    def stop(self) -> None:
        self.cluster.signal(signal.SIGTTOU)  # the last one stays
        wait_until(self.is_stopped, SECONDS)

    def is_stopped(self) -> bool:
        status = self.cluster.status()
        return (status["master"]["number_workers"], [worker["pid"] for worker in status["workers"]]) == (
            1,
            [self.first],
        )

    def clean(self) -> None:
        self.cluster.stop()

    def failures(self) -> Mapping[str, Callable[[], AbstractContextManager[object]]]:
        return {"its service cannot be imported any more": self.service_is_broken}

    @contextlib.contextmanager
    def service_is_broken(self) -> Iterator[None]:
        self.cluster.write_module("given", "raise ImportError('no')")
        yield
        self.cluster.write_module("given", SERVICE)


CLUSTER_PARTS: list[type[Part]] = [ARunningCluster, AClusterToldToStop, AClusterToldToQuit, AWorker]
