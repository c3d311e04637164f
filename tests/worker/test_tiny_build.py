"""The compiled engine with tiny sizes, watched by sanitizers: the tests of engines pass over every border of a buffer.

`sizes.h` says how small they are; the clients' parser is watched beside it. The build is a copy of the package with
libraries of its own, from the C files that the installation left; AddressSanitizer and the sanitizer of undefined
behaviour watch them, where the compiler has them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import rpccluster
from rpccluster.protocol.compiled import WIRE
from rpccluster.worker.hot.choice import why_not_compiled
from tests.programs import needed

CHECKOUT = Path(rpccluster.__file__).resolve().parent.parent
BUILT = (Path("rpccluster/worker/hot/compiled/_turn.c"), Path("rpccluster/protocol/_wire.c"))
FILES = (
    "border",
    "deadlines",
    "common_deadlines",
    "letter",
    "misbehaving_methods",
    "replies",
    "unsent",
    "fuzz",
    "engine",
)
#: These measure how much is read at once, or how long a slice is; tiny ones read less, and take longer.
OF_SIZES = (
    "far_ahead",
    "long_message_arrives",
    "come_whole",
    "little_does_not_wait",
    "sends_much_is_served",
    "leave_together",
)
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize=alignment", "--param", "asan-stack=0"]  # stacks are moved


def libraries(compiler: str) -> list[str]:
    """The sanitizers' libraries, which must be loaded first; empty where the compiler has none."""
    names = ("libasan.so", "libubsan.so")
    found = [subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True) for name in names]
    paths = [each.stdout.strip() for each in found]
    return paths if all(os.path.isabs(path) for path in paths) else []


@pytest.mark.timeout(600)
def test_the_engine_passes_over_every_border(tmp_path: Path) -> None:
    """Messages in pieces of 777 bytes, slices of 5 µs, buffers of 512 bytes: all replies are right, no byte strays."""
    compiler, sources = needed("cc"), CHECKOUT / "build" / "cython"
    if why_not_compiled() or WIRE is None or not all((sources / source).exists() for source in BUILT):
        pytest.skip(f"there is no compiled engine here: {why_not_compiled() or sources}")
    shutil.copytree(
        CHECKOUT / "rpccluster", tmp_path / "rpccluster", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    watchers = libraries(compiler)
    flags = ["-O0", "-w", "-fPIC", "-shared", "-DRPCCLUSTER_TINY", *(SANITIZED if watchers else [])]
    for source in BUILT:
        library = (tmp_path / source).with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))
        includes = [f"-I{sysconfig.get_paths()['include']}", f"-I{library.parent}"]
        subprocess.run([compiler, *flags, *includes, str(sources / source), "-o", str(library)], check=True)
    tests = CHECKOUT / "tests" / "worker"
    files = [*(str(tests / "hot" / f"test_{name}.py") for name in FILES), str(tests / "test_engines_alike.py")]
    files.append(str(CHECKOUT / "tests" / "protocol" / "test_common.py"))
    few = " and ".join(f"not {name}" for name in OF_SIZES)
    chosen = [
        "-k",
        f"(compiled or alike or test_common) and {few}",
        "--timeout",
        "300",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(tmp_path), str(CHECKOUT))),
        "PYTHONMALLOC": "malloc",  # which the sanitizer watches
        "LD_PRELOAD": " ".join(watchers),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "halt_on_error=1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(CHECKOUT / "pyproject.toml"), *chosen, *files]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    assert " passed" in done.stdout
