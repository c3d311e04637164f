"""Every value type: what it reads, what it refuses, and that what it writes reads the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.address import TCPAddress, UnixAddress
from rpccluster.config import values
from rpccluster.config.cpus import CPU_AUTO, CPU_NONE, CPUChoice
from rpccluster.config.values import ValueType

LARGEST = 2**63 - 1
COUNT = values.integer(1, 512)

GOOD = [
    (values.SERVICE, "demo:Demo", "demo:Demo"),
    (values.SERVICE, " my.long_name.mod:obj_1 ", "my.long_name.mod:obj_1"),
    (values.BOOLEAN, "true", True),
    (values.BOOLEAN, "Yes", True),
    (values.BOOLEAN, "ON", True),
    (values.BOOLEAN, "1", True),
    (values.BOOLEAN, "false", False),
    (values.BOOLEAN, "no", False),
    (values.BOOLEAN, "off", False),
    (values.BOOLEAN, "0", False),
    (COUNT, "1", 1),
    (COUNT, "512", 512),
    (values.integer(0), "0", 0),
    (values.integer(0), str(LARGEST), LARGEST),
    (values.SIZE, "0", 0),
    (values.SIZE, "1023", 1023),
    (values.SIZE, "1K", 1024),
    (values.SIZE, "16M", 16 << 20),
    (values.SIZE, "2g", 2 << 30),
    (values.SIZE, "16 M", 16 << 20),
    (values.DURATION, "0", 0.0),
    (values.DURATION, "30", 30.0),
    (values.DURATION, "0.25", 0.25),
    (values.DURATION, "1000000000", 1e9),
    (values.MODE, "0600", 0o600),
    (values.MODE, "660", 0o660),
    (values.MODE, "0o777", 0o777),
    (values.UMASK, "022", 0o022),
    (values.UMASK, "0", 0),
    (values.UMASK, "", None),
    (values.NAME, "my cluster", "my cluster"),
    (values.ACCOUNT, "", ""),
    (values.ACCOUNT, "www-data", "www-data"),
    (values.PATH, "", ""),
    (values.PATH, "run/a b.pid", "run/a b.pid"),
    (values.SOCKET_PATH, "/run/x.sock", "/run/x.sock"),
    (values.FOLDERS, "", ()),
    (values.FOLDERS, "lib", ("lib",)),
    (values.FOLDERS, "lib,\n/opt/more", ("lib", "/opt/more")),
    (values.ADDRESSES, "", ()),
    (values.ADDRESSES, "tcp://127.0.0.1:18800", (TCPAddress("127.0.0.1", 18800),)),
    (values.ADDRESSES, "localhost:0, unix:///tmp/a", (TCPAddress("localhost", 0), UnixAddress("/tmp/a"))),
    (values.ADDRESSES, "tcp://[::1]:80,\ntcp://a:1", (TCPAddress("::1", 80), TCPAddress("a", 1))),
    (values.CPUS, "none", CPU_NONE),
    (values.CPUS, "Auto", CPU_AUTO),
    (values.CPUS, "0-3,8", CPUChoice("list", (0, 1, 2, 3, 8))),
    (values.CPUS, "5", CPUChoice("list", (5,))),
    (values.CPUS, "3, 1 - 2", CPUChoice("list", (3, 1, 2))),
    (values.CPUS, "0,0,1", CPUChoice("list", (0, 0, 1))),
    (values.CPUS, "8191", CPUChoice("list", (8191,))),
    (values.LOG_FILE, "", ""),
    (values.LOG_FILE, "-", ""),
    (values.LOG_FILE, "stderr", ""),
    (values.LOG_FILE, "/var/log/x", "/var/log/x"),
    (values.LOG_LEVEL, "debug", "debug"),
    (values.LOG_LEVEL, "CRITICAL", "critical"),
    (values.ACCESS_LOG, "", "off"),
    (values.ACCESS_LOG, "off", "off"),
    (values.ACCESS_LOG, "False", "off"),
    (values.ACCESS_LOG, "on", "on"),
    (values.ACCESS_LOG, "yes", "on"),
    (values.ACCESS_LOG, "-", "on"),
    (values.ACCESS_LOG, "/var/log/access", "/var/log/access"),
]

BAD = [
    *(
        (values.SERVICE, text)
        for text in ("", "demo", "demo:", ":Demo", "a b:C", "demo:Demo()", "1mod:X", "a..b:C", "a:b:c")
    ),
    *((values.BOOLEAN, text) for text in ("", "2", "maybe", "tru")),
    *((COUNT, text) for text in ("", "0", "513", "-1", "1.5", "four", "4 # four", "0x10", "9" * 5000)),
    *((values.integer(0), text) for text in ("-1", str(LARGEST + 1))),
    *((values.SIZE, text) for text in ("", "-1", "M", "1.5G", "16MB", "16T", "K16", f"{LARGEST}G", "9" * 5000)),
    *((values.size(1, 100), text) for text in ("0", "101", "1K")),
    *((values.DURATION, text) for text in ("", "-1", "-0.001", "nan", "inf", "1e10", "30s", "1000000001")),
    *((values.MODE, text) for text in ("", "8", "1000", "-1", "rw", "0x1f", "00600")),
    *((values.UMASK, text) for text in ("9", "1000", "none")),
    *((values.NAME, text) for text in ("", "two\nlines", "a\0b")),
    *((values.ACCOUNT, text) for text in ("two\nlines", "a\0b")),
    *((values.PATH, text) for text in ("two\nlines", "a\0b")),
    *((values.SOCKET_PATH, text) for text in ("unix:///run/x", "tcp://a:1", "two\nlines")),
    *((values.FOLDERS, text) for text in ("a,,b", ",", "a,", "a\nb")),
    *(
        (values.ADDRESSES, text)
        for text in ("nowhere", "a:1,,b:2", "a:1,", "tcp://a:65536", "unix://relative", "a:1\nb:2")
    ),
    *(
        (values.CPUS, text)
        for text in ("", "all", "3-1", "-1", "0-", "0,,1", "1.5", "8192", "0-8192", "0-3;5", "auto,1")
    ),
    (values.CPUS, ",".join(["0-8191", "0"])),
    *((values.LOG_FILE, text) for text in ("two\nlines", "a\0b")),
    *((values.LOG_LEVEL, text) for text in ("", "warn", "10", "verbose")),
    *((values.ACCESS_LOG, text) for text in ("two\nlines", "a\0b")),
]


@pytest.mark.parametrize(("value_type", "text", "value"), GOOD)
def test_a_type_reads_what_it_says_it_reads(value_type: ValueType[object], text: str, value: object) -> None:
    """A value has the type and the size that `Options` promises."""
    assert value_type.parse(text) == value
    assert type(value_type.parse(text)) is type(value)


@pytest.mark.parametrize(("value_type", "text"), BAD)
def test_a_type_refuses_the_rest_with_what_it_found_and_expected(value_type: ValueType[object], text: str) -> None:
    """A bad value is an error that says what was found and what was expected, on one line."""
    with pytest.raises(ValueError, match=r"^found .+, expected .+") as refusal:
        value_type.parse(text)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(("value_type", "value"), [(value_type, value) for value_type, _, value in GOOD])
def test_what_a_type_writes_reads_the_same(value_type: ValueType[object], value: object) -> None:
    """--print-config shows values that a file could hold."""
    assert value_type.parse(value_type.write(value)) == value


def test_an_empty_value_is_found_as_nothing() -> None:
    """The fault for `number_workers =` does not quote an empty string."""
    with pytest.raises(ValueError, match=r"^found nothing, expected a whole number, 1 to 512$"):
        COUNT.parse("  ")


def test_a_long_value_is_quoted_in_part() -> None:
    """A fault stays one readable line whatever the value's length."""
    assert len(values.shown("x" * 10_000)) < 130


def test_the_address_at_fault_is_named() -> None:
    """Of several addresses the fault quotes the one that cannot be read."""
    with pytest.raises(ValueError, match=r"^found 'nowhere', expected tcp://"):
        values.ADDRESSES.parse("tcp://127.0.0.1:1, nowhere")


@given(st.integers(0, LARGEST))
def test_every_size_comes_back(value: int) -> None:
    """No size loses a byte in its written form."""
    assert values.SIZE.parse(values.SIZE.write(value)) == value


@given(st.integers(0, 2**33), st.sampled_from(["", "K", "M", "G", "k", "m", "g"]))
def test_units_are_powers_of_1024(number: int, unit: str) -> None:
    """K, M and G multiply by 1024, 1024² and 1024³."""
    factor = 1024 ** " KMG".index(unit.upper() or " ")
    if number * factor <= LARGEST:
        assert values.SIZE.parse(f"{number}{unit}") == number * factor


@given(st.floats(0, 1e9))
def test_every_duration_comes_back(value: float) -> None:
    """No duration loses precision in its written form."""
    assert values.DURATION.parse(values.DURATION.write(value)) == value


@given(st.lists(st.integers(0, 8191), min_size=1, max_size=50))
def test_every_list_of_cpus_comes_back(cpus: list[int]) -> None:
    """A list keeps its order and its repetitions: worker slot k gets the k-th."""
    choice = CPUChoice("list", tuple(cpus))
    assert values.CPUS.parse(str(choice)) == choice


@given(st.text())
def test_no_text_raises_anything_but_a_fault(text: str) -> None:
    """Whatever stands in a file becomes a value or a fault: a HUP never takes the master down."""
    for value_type in (values.SIZE, values.DURATION, values.CPUS, values.ADDRESSES, values.MODE, values.SERVICE, COUNT):
        try:
            value = value_type.parse(text)
        except ValueError as error:
            assert str(error).startswith("found ")
        else:
            assert value_type.parse(value_type.write(value)) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value_type", "value", "anchored"),
    [
        (values.PATH, "", ""),
        (values.PATH, "run/x.pid", "/start/run/x.pid"),
        (values.PATH, "../x.pid", "/x.pid"),
        (values.PATH, "/etc/../run/x.pid", "/run/x.pid"),
        (values.SOCKET_PATH, "x.sock", "/start/x.sock"),
        (values.FOLDERS, ("lib", "/opt"), ("/start/lib", "/opt")),
        (values.LOG_FILE, "", ""),
        (values.LOG_FILE, "x.log", "/start/x.log"),
        (values.ACCESS_LOG, "on", "on"),
        (values.ACCESS_LOG, "off", "off"),
        (values.ACCESS_LOG, "a.log", "/start/a.log"),
        (values.NAME, "x", "x"),
    ],
)
def test_paths_are_anchored_in_the_start_folder(value_type: ValueType[object], value: object, anchored: object) -> None:
    """A later change of folder cannot move what a relative path means."""
    assert value_type.anchor(value, "/start") == anchored
