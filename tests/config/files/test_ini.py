"""A configuration file: its settings, and one fault with its line for each thing that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.config import Sources, load
from rpccluster.config.files.ini import parse_ini, read_ini
from rpccluster.config.files.reading import Reading
from rpccluster.config.origin import File


def parse(text: str, here: str = "/etc/x") -> Reading:
    return parse_ini(text, File(f"{here}/x.ini", "x.ini"))


def values(reading: Reading) -> dict[str, str]:
    assert not reading.faults
    return {setting.key: setting.text for setting in reading.settings}


def places(reading: Reading) -> dict[str, str]:
    return {setting.key: str(setting.origin) for setting in reading.settings}


def faults(text: str) -> list[str]:
    return [str(fault) for fault in sorted(parse(text).faults, key=lambda fault: fault.origin)]


def test_a_file_gives_settings_with_their_lines() -> None:
    """Every value remembers the line it was written on."""
    reading = parse("# top\n\n[cluster]\nbind = tcp://a:1,\n   tcp://b:2\n# more\nbacklog: 5\n")
    assert values(reading) == {"bind": "tcp://a:1,\ntcp://b:2", "backlog": "5"}
    assert places(reading) == {"bind": "x.ini:4", "backlog": "x.ini:7"}
    assert str(reading.headers["cluster"]) == "x.ini:3"


def test_here_is_the_folder_of_the_file() -> None:
    """`%(here)s` lets a file name what lies beside it."""
    assert values(parse("[cluster]\npidfile = %(here)s/run/x.pid\n")) == {"pidfile": "/etc/x/run/x.pid"}


def test_here_may_hold_percent_signs() -> None:
    """A folder's name is never taken for an interpolation."""
    assert values(parse("[cluster]\npidfile = %(here)s/x\n", "/srv/100%/%(a)s")) == {"pidfile": "/srv/100%/%(a)s/x"}


def test_shared_values_reach_the_cluster() -> None:
    """[DEFAULT] holds names to refer to, and options as well."""
    reading = parse(
        "[DEFAULT]\nrun = %(here)s/run\nbacklog = 7\n[cluster]\npidfile = %(run)s/%(proc_name)s\nproc_name=n\n"
    )
    assert values(reading) == {"backlog": "7", "pidfile": "/etc/x/run/n", "proc_name": "n"}
    assert places(reading) == {"backlog": "x.ini:3", "pidfile": "x.ini:5", "proc_name": "x.ini:6"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_cluster_overrides_what_is_shared(order: tuple[int, int]) -> None:
    """[cluster] wins whichever section comes first."""
    sections = ["[DEFAULT]\nbacklog = 1\n", "[cluster]\nbacklog = 2\n"]
    reading = parse("".join(sections[each] for each in order))
    assert values(reading) == {"backlog": "2"}


def test_keys_are_read_in_any_case() -> None:
    """As configparser does it."""
    assert values(parse("[cluster]\nBackLog = 1\npidfile = %(BACKLOG)s\n")) == {"backlog": "1", "pidfile": "1"}


def test_a_doubled_percent_sign_is_one() -> None:
    """As configparser does it."""
    assert values(parse("[cluster]\nproc_name = 100%%\n")) == {"proc_name": "100%"}


FAULTY = [
    (
        "[cluster]\nnumber_worker = 3\n",
        ["x.ini:2: number_worker: found an unknown key, expected an option; did you mean number_workers?"],
    ),
    ("[cluster]\nqqq = 3\n", ["x.ini:2: qqq: found an unknown key, expected an option"]),
    ("[cluster]\nhere = /x\n", ["x.ini:2: here: found a value, expected none: it is always the file's folder"]),
    (
        "[DEFAULT]\nhere = /x\n[cluster]\n",
        ["x.ini:2: here: found a value, expected none: it is always the file's folder"],
    ),
    (
        "[DEFAULT]\nbaklog = 3\n[cluster]\n",
        [
            "x.ini:2: baklog: found a name that nothing uses, expected an option, or a name that some value refers to"
            "; did you mean backlog?"
        ],
    ),
    (
        "[DEFAULT]\nlogdir = 3\n[cluster]\npidfile = %%(logdir)s\n",
        ["x.ini:2: logdir: found a name that nothing uses, expected an option, or a name that some value refers to"],
    ),
    (
        "[cluster]\nbacklog = 1\nbacklog = 2\n",
        ["x.ini:3: backlog: found it again, expected it once: it stands in line 2"],
    ),
    (
        "[cluster]\nbacklog = 1\n[DEFAULT]\ntimeout = 1\ntimeout = 1\n",
        ["x.ini:5: timeout: found it again, expected it once: it stands in line 4"],
    ),
    (
        "[cluster]\n[DEFAULT]\n[cluster]\n",
        ["x.ini:3: [cluster]: found it again, expected it once: it stands in line 1"],
    ),
    (
        "[cluster]\n[logging]\nlevel = 3\n",
        [
            "x.ini:2: [logging]: found an unknown section, "
            "expected [cluster], [settings], [plugin:NAME], [pool:NAME], [queues], [queue:NAME], [leadership], "
            "[access], [metrics], [web] or [DEFAULT]"
        ],
    ),
    (
        "backlog = 1\n[cluster]\n",
        ["x.ini:1: backlog: found it before any section, expected it under [cluster]"],
    ),
    ("[cluster]\ndaemonize\n", ["x.ini:2: daemonize: found 'daemonize', expected KEY = VALUE or [cluster]"]),
    (
        "[cluster] # mine\n",
        [
            "x.ini:1: [cluster]: found '[cluster] # mine', expected KEY = VALUE or [cluster]",
            "x.ini:1: [cluster]: found no such section, expected one",
        ],
    ),
    ("", ["x.ini:1: [cluster]: found no such section, expected one"]),
    ("[DEFAULT]\nbacklog = 1\n", ["x.ini:1: [cluster]: found no such section, expected one"]),
    (
        "[cluster]\npidfile = %(hre)s/x\n",
        ["x.ini:2: pidfile: found %(hre)s, expected a name of [DEFAULT] or here; did you mean here?"],
    ),
    ("[cluster]\npidfile = 5%\n", ["x.ini:2: pidfile: found '5%', expected %(name)s, or %% for a percent sign"]),
    (
        "[cluster]\npidfile = %(here\n",
        ["x.ini:2: pidfile: found '%(here', expected %(name)s, or %% for a percent sign"],
    ),
    (
        "[DEFAULT]\na = %(b)s\nb = %(a)s\n[cluster]\npidfile = %(a)s\n",
        ["x.ini:5: pidfile: found '%(a)s', which leads to itself, expected a value"],
    ),
    (
        "[DEFAULT]\nbacklog = %(nope)s\n[cluster]\nbacklog = 1\n",
        ["x.ini:2: backlog: found %(nope)s, expected a name of [DEFAULT] or here"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), FAULTY)
def test_each_fault_names_its_line_and_key(text: str, expected: list[str]) -> None:
    """An error has the form FILE:LINE: KEY: what was found, what was expected."""
    assert faults(text) == expected


def test_all_faults_of_a_file_are_reported_at_once() -> None:
    """Nobody has to start the program once for each mistake."""
    text = (
        "lost = 1\n[cluster]\nbacklog = %(x)s\nbacklog = 2\nstray\n  qqq\nqqq = 1\n[more]\nk = v\n[DEFAULT]\nrun = 1\n"
    )
    assert [fault.split(":")[1] for fault in faults(text)] == ["1", "3", "4", "5", "6", "7", "8", "11"]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf[cluster]\nbacklog = 5\nproc_name = \xc3\xa4\n",
        b"[cluster]\r\nbacklog = 5\r\nproc_name = \xc3\xa4\r\n",
        b"\xef\xbb\xbf[cluster]\rbacklog = 5\rproc_name = \xc3\xa4",
    ],
)
def test_byte_order_marks_and_foreign_line_endings(tmp_path: Path, data: bytes) -> None:
    """Files of other systems and editors mean the same, line by line."""
    path = tmp_path / "x.ini"
    path.write_bytes(data)
    reading = read_ini(File(str(path), "shown.ini"))
    assert values(reading) == {"backlog": "5", "proc_name": "ä"}
    assert places(reading) == {"backlog": "shown.ini:2", "proc_name": "shown.ini:3"}


def test_here_is_absolute_and_keeps_symbolic_links(tmp_path: Path) -> None:
    """`here` is the folder the user named, not where a link leads to."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.ini").write_text("[cluster]\npidfile = %(here)s/x\n")
    (tmp_path / "link").symlink_to("real")
    assert values(read_ini(File(str(tmp_path / "link" / "x.ini"), "x.ini"))) == {"pidfile": f"{tmp_path}/link/x"}


def unreadable(path: Path) -> str:
    reading = read_ini(File(str(path), "x.ini"))
    assert reading.settings == ()
    assert reading.headers == {}
    (fault,) = reading.faults
    return str(fault)


def test_bytes_that_are_not_utf8_are_a_fault_with_their_line(tmp_path: Path) -> None:
    """A file in another encoding is refused whole, and says where it begins to differ."""
    path = tmp_path / "x.ini"
    path.write_bytes(b"[cluster]\n\nproc_name = \xe4\nbacklog = 1\n")
    assert unreadable(path) == "x.ini:3: config: found the byte 0xe4, expected UTF-8 text"
    path.write_bytes(b"\xef\xbb\xbf[cluster]\nproc_name = \xe4\n")
    assert unreadable(path) == "x.ini:2: config: found the byte 0xe4, expected UTF-8 text"


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """No file, a folder, a path below a file: each is one fault, never a traceback."""
    (tmp_path / "file").touch()
    fault = "x.ini:1: config: cannot read the file: {}"
    assert unreadable(tmp_path / "none.ini") == fault.format("No such file or directory")
    assert unreadable(tmp_path) == fault.format("Is a directory")
    assert unreadable(tmp_path / "file" / "x.ini") == fault.format("Not a directory")


def test_an_endless_file_is_a_fault() -> None:
    """A reload never fills the master's memory."""
    assert unreadable(Path("/dev/zero")).startswith("x.ini:1: config: found more than 1048576 bytes, expected")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_no_text_raises(text: str) -> None:
    """Whatever stands in a file, reading it ends with settings or faults."""
    for whole in (text, f"[cluster]\npidfile = {text}", f"[DEFAULT]\n{text}\n[cluster]\n"):
        reading = parse(whole)
        assert reading.settings or reading.faults or reading.headers


def test_settings_keep_their_keys(tmp_path: Path) -> None:
    """Their case, any name, no key of [DEFAULT]; interpolation reaches it, in any case, and their own, in theirs."""
    path = tmp_path / "x.ini"
    path.write_text(
        "[DEFAULT]\nBase = 7\ntimeout = 5\n[cluster]\nservice = a:b\n"
        "[settings]\nPrice = 1\nprice = %(BASE)s%(Price)s\ntwo words = %(here)s 5%%\ntimeout = 1\n"
    )
    found = load(Sources(str(path)))
    assert found.settings(3) == (
        3,
        {"Price": "1", "price": "71", "two words": f"{tmp_path} 5%", "timeout": "1"},
        {key: f"{path}:{line}" for line, key in enumerate(("Price", "price", "two words", "timeout"), 7)},
    )
    assert ("settings.Price", "1", f"{path}:7") in list(found.describe())
    path.write_text("[DEFAULT]\ntimeout = 5\n[cluster]\nservice = a:b\n[settings]\n")
    assert load(Sources(str(path))).settings(1) == (1, {}, {})
