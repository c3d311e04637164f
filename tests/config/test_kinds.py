"""Every kind of value: what it reads, what it refuses, and that what it writes reads the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.address import TCPAddress, UnixAddress
from rpccluster.config import values as kinds
from rpccluster.config.cpulist import CPU_AUTO, CPU_NONE, CPUChoice
from rpccluster.config.values import Kind

LARGEST = 2**63 - 1
COUNT = kinds.integer(1, 512)

GOOD = [
    (kinds.SERVICE, "demo:Demo", "demo:Demo"),
    (kinds.SERVICE, " my.long_name.mod:obj_1 ", "my.long_name.mod:obj_1"),
    (kinds.BOOLEAN, "true", True),
    (kinds.BOOLEAN, "Yes", True),
    (kinds.BOOLEAN, "ON", True),
    (kinds.BOOLEAN, "1", True),
    (kinds.BOOLEAN, "false", False),
    (kinds.BOOLEAN, "no", False),
    (kinds.BOOLEAN, "off", False),
    (kinds.BOOLEAN, "0", False),
    (COUNT, "1", 1),
    (COUNT, "512", 512),
    (kinds.integer(0), "0", 0),
    (kinds.integer(0), str(LARGEST), LARGEST),
    (kinds.SIZE, "0", 0),
    (kinds.SIZE, "1023", 1023),
    (kinds.SIZE, "1K", 1024),
    (kinds.SIZE, "16M", 16 << 20),
    (kinds.SIZE, "2g", 2 << 30),
    (kinds.SIZE, "16 M", 16 << 20),
    (kinds.DURATION, "0", 0.0),
    (kinds.DURATION, "30", 30.0),
    (kinds.DURATION, "0.25", 0.25),
    (kinds.DURATION, "1000000000", 1e9),
    (kinds.MODE, "0600", 0o600),
    (kinds.MODE, "660", 0o660),
    (kinds.MODE, "0o777", 0o777),
    (kinds.UMASK, "022", 0o022),
    (kinds.UMASK, "0", 0),
    (kinds.UMASK, "", None),
    (kinds.NAME, "my cluster", "my cluster"),
    (kinds.ACCOUNT, "", ""),
    (kinds.ACCOUNT, "www-data", "www-data"),
    (kinds.PATH, "", ""),
    (kinds.PATH, "run/a b.pid", "run/a b.pid"),
    (kinds.SOCKET_PATH, "/run/x.sock", "/run/x.sock"),
    (kinds.FOLDERS, "", ()),
    (kinds.FOLDERS, "lib", ("lib",)),
    (kinds.FOLDERS, "lib,\n/opt/more", ("lib", "/opt/more")),
    (kinds.ADDRESSES, "", ()),
    (kinds.ADDRESSES, "tcp://127.0.0.1:18800", (TCPAddress("127.0.0.1", 18800),)),
    (kinds.ADDRESSES, "localhost:0, unix:///tmp/a", (TCPAddress("localhost", 0), UnixAddress("/tmp/a"))),
    (kinds.ADDRESSES, "tcp://[::1]:80,\ntcp://a:1", (TCPAddress("::1", 80), TCPAddress("a", 1))),
    (kinds.CPUS, "none", CPU_NONE),
    (kinds.CPUS, "Auto", CPU_AUTO),
    (kinds.CPUS, "0-3,8", CPUChoice("list", (0, 1, 2, 3, 8))),
    (kinds.CPUS, "5", CPUChoice("list", (5,))),
    (kinds.CPUS, "3, 1 - 2", CPUChoice("list", (3, 1, 2))),
    (kinds.CPUS, "0,0,1", CPUChoice("list", (0, 0, 1))),
    (kinds.CPUS, "8191", CPUChoice("list", (8191,))),
    (kinds.LOG_FILE, "", ""),
    (kinds.LOG_FILE, "-", ""),
    (kinds.LOG_FILE, "stderr", ""),
    (kinds.LOG_FILE, "/var/log/x", "/var/log/x"),
    (kinds.LOG_LEVEL, "debug", "debug"),
    (kinds.LOG_LEVEL, "CRITICAL", "critical"),
    (kinds.ACCESS_LOG, "", "off"),
    (kinds.ACCESS_LOG, "off", "off"),
    (kinds.ACCESS_LOG, "False", "off"),
    (kinds.ACCESS_LOG, "on", "on"),
    (kinds.ACCESS_LOG, "yes", "on"),
    (kinds.ACCESS_LOG, "-", "on"),
    (kinds.ACCESS_LOG, "/var/log/access", "/var/log/access"),
]

BAD = [
    *(
        (kinds.SERVICE, text)
        for text in ("", "demo", "demo:", ":Demo", "a b:C", "demo:Demo()", "1mod:X", "a..b:C", "a:b:c")
    ),
    *((kinds.BOOLEAN, text) for text in ("", "2", "maybe", "tru")),
    *((COUNT, text) for text in ("", "0", "513", "-1", "1.5", "four", "4 # four", "0x10", "9" * 5000)),
    *((kinds.integer(0), text) for text in ("-1", str(LARGEST + 1))),
    *((kinds.SIZE, text) for text in ("", "-1", "M", "1.5G", "16MB", "16T", "K16", f"{LARGEST}G", "9" * 5000)),
    *((kinds.size(1, 100), text) for text in ("0", "101", "1K")),
    *((kinds.DURATION, text) for text in ("", "-1", "-0.001", "nan", "inf", "1e10", "30s", "1000000001")),
    *((kinds.MODE, text) for text in ("", "8", "1000", "-1", "rw", "0x1f", "00600")),
    *((kinds.UMASK, text) for text in ("9", "1000", "none")),
    *((kinds.NAME, text) for text in ("", "two\nlines", "a\0b")),
    *((kinds.ACCOUNT, text) for text in ("two\nlines", "a\0b")),
    *((kinds.PATH, text) for text in ("two\nlines", "a\0b")),
    *((kinds.SOCKET_PATH, text) for text in ("unix:///run/x", "tcp://a:1", "two\nlines")),
    *((kinds.FOLDERS, text) for text in ("a,,b", ",", "a,", "a\nb")),
    *(
        (kinds.ADDRESSES, text)
        for text in ("nowhere", "a:1,,b:2", "a:1,", "tcp://a:65536", "unix://relative", "a:1\nb:2")
    ),
    *(
        (kinds.CPUS, text)
        for text in ("", "all", "3-1", "-1", "0-", "0,,1", "1.5", "8192", "0-8192", "0-3;5", "auto,1")
    ),
    (kinds.CPUS, ",".join(["0-8191", "0"])),
    *((kinds.LOG_FILE, text) for text in ("two\nlines", "a\0b")),
    *((kinds.LOG_LEVEL, text) for text in ("", "warn", "10", "verbose")),
    *((kinds.ACCESS_LOG, text) for text in ("two\nlines", "a\0b")),
]


@pytest.mark.parametrize(("kind", "text", "value"), GOOD)
def test_a_kind_reads_what_it_says_it_reads(kind: Kind[object], text: str, value: object) -> None:
    """A value has the type and the size that `Options` promises."""
    assert kind.parse(text) == value
    assert type(kind.parse(text)) is type(value)


@pytest.mark.parametrize(("kind", "text"), BAD)
def test_a_kind_refuses_the_rest_with_what_it_found_and_expected(kind: Kind[object], text: str) -> None:
    """A bad value is an error that says what was found and what was expected, on one line."""
    with pytest.raises(ValueError, match=r"^found .+, expected .+") as refusal:
        kind.parse(text)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, _, value in GOOD])
def test_what_a_kind_writes_reads_the_same(kind: Kind[object], value: object) -> None:
    """--print-config shows values that a file could hold."""
    assert kind.parse(kind.write(value)) == value


def test_an_empty_value_is_found_as_nothing() -> None:
    """The fault for `number_workers =` does not quote an empty string."""
    with pytest.raises(ValueError, match=r"^found nothing, expected a whole number, 1 to 512$"):
        COUNT.parse("  ")


def test_a_long_value_is_quoted_in_part() -> None:
    """A fault stays one readable line whatever the value's length."""
    assert len(kinds.shown("x" * 10_000)) < 130


def test_the_address_at_fault_is_named() -> None:
    """Of several addresses the fault quotes the one that cannot be read."""
    with pytest.raises(ValueError, match=r"^found 'nowhere', expected tcp://"):
        kinds.ADDRESSES.parse("tcp://127.0.0.1:1, nowhere")


@given(st.integers(0, LARGEST))
def test_every_size_comes_back(value: int) -> None:
    """No size loses a byte in its written form."""
    assert kinds.SIZE.parse(kinds.SIZE.write(value)) == value


@given(st.integers(0, 2**33), st.sampled_from(["", "K", "M", "G", "k", "m", "g"]))
def test_units_are_powers_of_1024(number: int, unit: str) -> None:
    """K, M and G multiply by 1024, 1024² and 1024³."""
    factor = 1024 ** " KMG".index(unit.upper() or " ")
    if number * factor <= LARGEST:
        assert kinds.SIZE.parse(f"{number}{unit}") == number * factor


@given(st.floats(0, 1e9))
def test_every_duration_comes_back(value: float) -> None:
    """No duration loses precision in its written form."""
    assert kinds.DURATION.parse(kinds.DURATION.write(value)) == value


@given(st.lists(st.integers(0, 8191), min_size=1, max_size=50))
def test_every_list_of_cpus_comes_back(cpus: list[int]) -> None:
    """A list keeps its order and its repetitions: worker slot k gets the k-th."""
    choice = CPUChoice("list", tuple(cpus))
    assert kinds.CPUS.parse(str(choice)) == choice


@given(st.text())
def test_no_text_raises_anything_but_a_fault(text: str) -> None:
    """Whatever stands in a file becomes a value or a fault: a HUP never takes the master down."""
    for kind in (kinds.SIZE, kinds.DURATION, kinds.CPUS, kinds.ADDRESSES, kinds.MODE, kinds.SERVICE, COUNT):
        try:
            value = kind.parse(text)
        except ValueError as error:
            assert str(error).startswith("found ")
        else:
            assert kind.parse(kind.write(value)) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "value", "anchored"),
    [
        (kinds.PATH, "", ""),
        (kinds.PATH, "run/x.pid", "/start/run/x.pid"),
        (kinds.PATH, "../x.pid", "/x.pid"),
        (kinds.PATH, "/etc/../run/x.pid", "/run/x.pid"),
        (kinds.SOCKET_PATH, "x.sock", "/start/x.sock"),
        (kinds.FOLDERS, ("lib", "/opt"), ("/start/lib", "/opt")),
        (kinds.LOG_FILE, "", ""),
        (kinds.LOG_FILE, "x.log", "/start/x.log"),
        (kinds.ACCESS_LOG, "on", "on"),
        (kinds.ACCESS_LOG, "off", "off"),
        (kinds.ACCESS_LOG, "a.log", "/start/a.log"),
        (kinds.NAME, "x", "x"),
    ],
)
def test_paths_are_anchored_in_the_start_folder(kind: Kind[object], value: object, anchored: object) -> None:
    """A later change of folder cannot move what a relative path means."""
    assert kind.anchor(value, "/start") == anchored
