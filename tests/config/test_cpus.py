"""How many CPUs this process may use, on trees of files as kernels show them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from rpccluster.config.cpus import (
    MOST_WORKERS,
    allowed_cpus,
    cpus_of_status,
    default_workers,
    quota_cpus,
    workers_for,
)


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


@pytest.mark.parametrize(
    ("cpus", "quota", "workers"),
    [
        (4, math.inf, 4),
        (4, 2.0, 2),
        (4, 2.9, 2),
        (2, 8.0, 2),
        (4, 0.5, 1),
        (1, math.inf, 1),
        (1024, math.inf, MOST_WORKERS),
    ],
)
def test_workers_are_whole_and_at_least_one(cpus: int, quota: float, workers: int) -> None:
    """The quota is rounded down, and the default is always a legal value."""
    assert workers_for(cpus, quota) == workers


def test_this_machine_has_an_answer() -> None:
    """The real files give a legal default."""
    assert 1 <= default_workers() <= len(allowed_cpus())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs os.sched_setaffinity")
def test_the_affinity_of_this_process_counts() -> None:
    """A process that may run on one CPU gets one worker."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_cpus() == {min(before)}
        assert default_workers() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_status_file_tells_the_same() -> None:
    """An interpreter without sched_getaffinity reads what the kernel shows; a kernel that hides it allows all."""
    assert cpus_of_status("Name:\tx\nCpus_allowed:\t10f\nCpus_allowed_list:\t0-3,8\n") == {0, 1, 2, 3, 8}
    assert cpus_of_status(Path("/proc/self/status").read_text()) == allowed_cpus()
    assert cpus_of_status("Name:\tx\n") == set(range(os.cpu_count() or 1))
