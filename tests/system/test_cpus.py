"""The CPUs of a machine, on trees of files as kernels show them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rpccluster import system
from rpccluster.system.cpus import Core, allowed_cpus, cpus_of_status, quota_cpus, read_topology


def tree(root: Path, cgroup: str, files: dict[str, str]) -> str:
    for name, text in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{key}": files[key] for key in files}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


V1 = {"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("cgroup", "files", "cpus"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3.0),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "300000 100000\n"}, 3.0),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n", "a/cpu.max": "300000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/host/path\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/../other\n", {"cpu.max": "150000 100000\n", "../cpu.max": "1 1\n"}, 1.5),
        ("3:cpu,cpuacct:/a\n0::/\n", {f"cpu,cpuacct/a/{name}": text for name, text in V1.items()}, 1.5),
        ("1:cpu:/docker/x\n", {f"cpu/{name}": text for name, text in V1.items()}, 1.5),
        ("1:cpuset:/a\n2:cpuacct:/a\n", {f"cpuset/a/{name}": text for name, text in V1.items()}, math.inf),
        ("1:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("1:cpu:/a\n", {"cpu/a/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("0::/a\n", {"a/cpu.max": "garbage\n"}, math.inf),
        ("0::/a\n", {"a/cpu.max": "100000 0\n"}, math.inf),
        ("garbage\n", {}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_the_tightest_quota_from_the_cgroup_up_counts(
    tmp_path: Path, cgroup: str, files: dict[str, str], cpus: float
) -> None:
    """The default of number_workers never exceeds what any cgroup above grants."""
    assert quota_cpus(tree(tmp_path, cgroup, files)) == cpus


def test_a_machine_without_cgroups_sets_no_bound(tmp_path: Path) -> None:
    """No file to read is no fault."""
    assert quota_cpus(str(tmp_path)) == math.inf


def test_the_status_file_tells_the_same() -> None:
    """An interpreter without sched_getaffinity reads what the kernel shows; a kernel that hides it allows all."""
    assert cpus_of_status("Name:\tx\nCpus_allowed:\t10f\nCpus_allowed_list:\t0-3,8\n") == {0, 1, 2, 3, 8}
    assert cpus_of_status(Path("/proc/self/status").read_text()) == allowed_cpus()
    assert cpus_of_status("Name:\tx\n") == set(range(os.cpu_count() or 1))


def test_the_topology_is_read_as_far_as_it_is_told(tmp_path: Path) -> None:
    """A CPU that says nothing sensible is left out, never guessed."""
    for cpu, package, core in [(0, "0\n", "0\n"), (1, "1\n", "7\n"), (2, "x\n", "1\n")]:
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(package)
        (folder / "core_id").write_text(core)
    assert read_topology([0, 1, 2, 3], str(tmp_path)) == {0: Core(0, 0), 1: Core(1, 7)}


def run(program: str) -> str:
    """What ``program`` prints, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_process_may_be_pinned() -> None:
    """To one CPU of those it may run on."""
    cpu = max(system.allowed_cpus())
    program = f"from rpccluster import system; system.pin([{cpu}]); print(sorted(system.allowed_cpus()))"
    assert run(program) == f"[{cpu}]"


def test_a_cpu_that_is_not_there_is_an_oserror() -> None:
    """Nothing has changed then."""
    before = system.allowed_cpus()
    with pytest.raises((OSError, ValueError)):
        system.pin([4095])
    assert system.allowed_cpus() == before
