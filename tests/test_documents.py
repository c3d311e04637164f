"""The documents say what is so: names, links, keys, signals, commands and numbers are held to the code."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import npm_clients
import old_library
import programs
import pytest
from code_blocks import RUN, code_blocks, indented_lines

from rpccluster import errors
from rpccluster.cli.calling.call import EXIT_NO_ANSWER, EXIT_REMOTE_ERROR
from rpccluster.cli.control import EXIT_NO_MASTER, EXIT_USAGE
from rpccluster.cli.main import cli
from rpccluster.config import OPTIONS, Effect, Sources, load
from rpccluster.config.sections.plugin import PLUGIN
from rpccluster.config.sections.pool import POOL
from rpccluster.config.sections.queues import QUEUE, QUEUES
from rpccluster.config.sections.web import METRICS, WEB
from rpccluster.ipc.scoreboard import LIMITS
from rpccluster.master import phases
from rpccluster.master.control.signal_commands import COMMANDS
from rpccluster.master.signals import HANDLED

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "rpccluster"
README = CHECKOUT / "README.md"
CONFIGURATION = CHECKOUT / "docs" / "configuration.md"
PLUGINS = CHECKOUT / "docs" / "plugins.md"
POOLS = CHECKOUT / "docs" / "pools.md"
OF_QUEUES = CHECKOUT / "docs" / "queues.md"
OF_METRICS = CHECKOUT / "docs" / "metrics.md"
OF_WEB = CHECKOUT / "docs" / "web.md"
INTERNALS = CHECKOUT / "docs" / "internals.md"
OPERATIONS = CHECKOUT / "docs" / "operations.md"
SECURITY = CHECKOUT / "SECURITY.md"
CLIENT = CHECKOUT / "docs" / "client.md"
CLIENTS = CHECKOUT / "docs" / "clients.md"
EXAMPLES = [*CHECKOUT.glob("examples/README.md"), *CHECKOUT.glob("examples/*/README.md")]
DOCUMENTS = sorted([README, SECURITY, CHECKOUT / "CHANGELOG.md", *(CHECKOUT / "docs").glob("*.md"), *EXAMPLES])
HOSTS = {
    "127.0.0.1:18890",
    "127.0.0.1:18891",
    "github.com",
    "gunicorn.org",
    "keepachangelog.com",
    "semver.org",
    "www.w3.org",
}
FOLDERS = "rpccluster|tests|bench|bin|docs|etc|cli|client|config|ipc|master|protocol|worker"
FOLDERS_OF_ANY_LINUX = {"dev", "etc", "path", "proc", "run", "srv", "sys", "var"}

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))

Row = dict[str, str]


def tables(document: Path) -> Iterator[list[Row]]:
    """Each Markdown table: a dict of its cells by column for each row."""
    for block in re.findall(r"(?:^\|.*\n)+", document.read_text() + "\n", re.MULTILINE):
        header, _, *rows = [[cell.strip() for cell in line.strip("|\n").split(" |")] for line in block.splitlines()]
        yield [dict(zip(map(str.strip, header), row)) for row in rows]


def table(document: Path, *columns: str) -> list[Row]:
    """The rows of all tables that have these columns first."""
    return [row for rows in tables(document) for row in rows if tuple(row)[: len(columns)] == columns]


def names(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def prose(document: Path) -> str:
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """What a link may name after the number sign: the headings as a browser is shown them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- every document


@each_document
def test_no_link_is_dead(document):
    """A relative link leads to a file of the repository, and to a heading in it."""
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            found = (document.parent / path).resolve() if path else document
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


@each_document
def test_what_is_named_exists(document):
    """A path in backticks is one of the repository; in docs/, of the package too."""
    for name in names(prose(document)):
        if re.fullmatch(rf"({FOLDERS})/[\w/.]*", name):
            assert (CHECKOUT / name).exists() or (PACKAGE / name).exists(), name


@each_document
def test_nothing_of_one_machine(document):
    """No path of a developer's machine, and no host but those that everybody may look at."""
    text = document.read_text()
    assert set(re.findall(r"\bhttps?://([^/\s)]+)", text)) <= HOSTS
    text = re.sub(r"\w+://\S+", "", text)
    assert set(re.findall(r"(?<![\w.:/)…-])/([a-z][\w.-]*)/\w", text)) <= FOLDERS_OF_ANY_LINUX


# -- code blocks


@each_document
def test_every_block_says_what_it_is(document):
    """A test runs it, or it is a text, or a file that a command needs; who leaves one out says why."""
    for block in code_blocks(document):
        assert block.language, f"{block}: a language is missing; a drawing or an output is `text`"
        assert not block.note or re.match(r"not-run: \w+ \w+", block.note), f"{block}: expected `not-run: REASON`"
        assert block.language in RUN | {"text"} or block.name, (
            f"{block}: expected the name of a file in the line before"
        )
    assert not list(indented_lines(document))


@each_document
def test_blocks_of_python_and_ini_can_be_read(document, tmp_path):
    """Quick to see; `tests/process/test_code_blocks.py` runs them."""
    for block in code_blocks(document):
        if block.is_run and block.language == "python":
            compile("\n" * (block.line - 1) + block.text, str(document), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if block.is_run and block.language == "ini":
            path = tmp_path / f"{block.line}.ini"
            path.write_text(block.text)
            load(Sources(str(path)))


def test_the_readme_is_short():
    """So that it is read."""
    assert len(README.read_text().splitlines()) < 200


# -- docs/configuration.md


def test_the_table_of_keys_is_the_schemas():
    """Every key once, in the schema's order, with its default, its flags, and when a change takes effect."""
    rows = [row for row in table(CONFIGURATION, "key", "default", "flag") if row["key"].startswith("`")]
    assert [names(row["key"])[0] for row in rows] == list(OPTIONS)
    for row, option in zip(rows, OPTIONS.values()):
        assert names(row["flag"]) == list(option.flags), row
        assert ("†" in row["key"]) == (option.effect is Effect.RESTART), row
        assert ("*" in row["key"]) == (option.effect is Effect.PROCESSES), row
        if option.compute is None and option.default_text:
            assert row["default"] == f"`{option.default_text}`", row
        assert row["meaning"], row


def test_the_table_of_a_plugins_keys_is_the_schemas():
    """Every key once, in the schema's order, with its default; in etc/, too, as another test says."""
    rows = [row for row in table(PLUGINS, "key", "default", "meaning") if row["key"].startswith("`")]
    assert [names(row["key"])[0].partition(".")[0] for row in rows] == list(PLUGIN.options)
    for row, option in zip(rows, PLUGIN.options.values()):
        assert row["default"] == (f"`{option.default_text}`" if option.default_text else ""), row


def test_the_table_of_a_pools_keys_is_the_schemas():
    """The same, for the sections [pool:NAME]; a default that depends on the machine is told in words."""
    rows = [row for row in table(POOLS, "key", "default", "meaning") if row["key"].startswith("`")]
    assert [names(row["key"])[0].partition(".")[0] for row in rows] == list(POOL.options)
    for row, option in zip(rows, POOL.options.values()):
        if option.compute is None:
            assert row["default"] == (f"`{option.default_text}`" if option.default_text else ""), row


@pytest.mark.parametrize(("document", "section"), [(OF_METRICS, METRICS), (OF_WEB, WEB)], ids=["metrics", "web"])
def test_the_tables_of_the_keys_of_the_page_are_the_schemas(document, section):
    """The same, for what is seen."""
    rows = table(document, f"key of `[{section.name}]`", "default", "meaning")
    assert [names(row[f"key of `[{section.name}]`"])[0] for row in rows] == list(section.options)
    for row, option in zip(rows, section.options.values()):
        assert row["default"] == (f"`{option.default_text}`" if option.default_text else ""), row
        assert ("*" in row[f"key of `[{section.name}]`"]) == (option.effect is Effect.PROCESSES), row


@pytest.mark.parametrize("section", [QUEUES, QUEUE], ids=["queues", "queue"])
def test_the_tables_of_the_keys_of_queues_are_the_schemas(section):
    """The same, for both kinds of sections, and what replaces the keeper."""
    rows = table(OF_QUEUES, f"key of `{section.header}`", "default", "meaning")
    assert [names(row[f"key of `{section.header}`"])[0] for row in rows] == list(section.options)
    for row, option in zip(rows, section.options.values()):
        assert row["default"] == (f"`{option.default_text}`" if option.default_text else ""), row
        assert ("*" in row[f"key of `{section.header}`"]) == (option.effect is Effect.PROCESSES), row


def test_keys_without_effect_are_marked():
    """Only what nothing reads bears the mark, and all of that does."""
    sources = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py") if "config" not in path.parts)
    read = {key for key in OPTIONS if re.search(rf"options\.{key}\b", sources)} | {"bind", "unix_socket", "include"}
    assert "options.listen_addresses" in sources
    marked = {names(row["key"])[0] for row in table(CONFIGURATION, "key", "default", "flag") if "‡" in row["key"]}
    assert marked == OPTIONS.keys() - read


# -- signals, commands and flags


def test_the_tour_of_signals_is_complete():
    """Every signal that the master handles, and no other."""
    told = {name for row in table(OPERATIONS, "signal", "does") for name in names(row["signal"])}
    assert told == {signum.name[3:] for signum in HANDLED}
    assert {signum.name[3:] for signum in COMMANDS} == told - {"CHLD"}


def test_the_exit_codes_are_the_codes():
    """Beside 0 and click's 2."""
    told = {int(row["exit code"]) for row in table(OPERATIONS, "exit code", "of the cluster")}
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert told == {0, click.UsageError.exit_code} | codes
    assert {EXIT_USAGE, EXIT_NO_MASTER, EXIT_NO_ANSWER, EXIT_REMOTE_ERROR} <= told


def test_every_subcommand_and_flag_is_told():
    """The control commands stand in their table, the flags beside their keys, commands, `call` and `stub`."""
    told = {name.split()[0] for row in table(OPERATIONS, "command", "does") for name in names(row["command"])}
    assert isinstance(cli, click.Group)
    assert told | {"call", "stub"} == set(cli.commands)
    pages = "\n".join(page.read_text() for page in (CONFIGURATION, OPERATIONS, CLIENT, PLUGINS))
    words = set(re.findall(r"--?[a-zA-Z][\w-]*", pages))
    nested = [each for command in cli.commands.values() for each in getattr(command, "commands", {}).values()]
    flags = {
        flag for command in (cli, *cli.commands.values(), *nested) for each in command.params for flag in each.opts
    }
    assert {f"plugin {name}" for name in cli.commands["plugin"].commands} == {
        " ".join(name.split()[:2]) for row in table(PLUGINS, "command", "does") for name in names(row["command"])
    } - {"scale plugin:NAME"}
    assert {flag for flag in flags if flag.startswith("-")} <= words


def _commands() -> list[str]:
    blocks = [block for document in DOCUMENTS for block in code_blocks(document) if block.language == "sh"]
    lines = [line for block in blocks for line in block.text.splitlines()] + names(prose(README))
    return sorted({line.split("#")[0].strip() for line in lines if re.match(r"bin/\w+ ", line)})


@pytest.mark.parametrize("command", _commands())
def test_the_commands_of_the_checkout_exist(command):
    """The program is there and can be run, the subcommand is one, and the files it is given are there."""
    program, *words = shlex.split(command)
    assert (CHECKOUT / program).stat().st_mode & 0o111
    for word in words:
        if "/" in word and "." in word and "://" not in word and not word.startswith(".."):
            assert (CHECKOUT / word).exists(), word
    if program == "bin/rpccluster":
        words = words[2:] if words[0] == "-c" else words
        assert not words or words[0] in cli.commands or re.fullmatch(r"\w+:\w+", words[0])


# -- SECURITY.md


def test_every_limit_is_told():
    """Every option that is a number, in the schema's order, with its default; every counter of `status`."""
    rows = table(SECURITY, "key", "default")
    limits = [key for key, option in OPTIONS.items() if type(option.default) in (int, float) or key == "number_workers"]
    assert [names(row["key"])[0] for row in rows if names(row["key"])] == limits
    for row in rows:
        for key in names(row["key"]):
            assert OPTIONS[key].compute or row["default"] == f"`{OPTIONS[key].default_text}`", row
            assert key not in LIMITS or names(row["counter"]) == [key], row
    assert sorted(name for row in rows for name in names(row["counter"])) == sorted(LIMITS)


def _value_of(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"rpccluster.{module}"), name)


def test_the_bounds_are_the_codes():
    """Each constant named has that value."""
    for row in table(SECURITY, "constant", "module", "value"):
        assert _value_of(names(row["module"])[0], names(row["constant"])[0]) == float(row["value"]), row


# -- docs/clients.md


def test_the_clients_in_bold_are_those_of_the_tests():
    """In the version that the tests install."""
    setup = (CHECKOUT / "setup.py").read_text()
    pinned = re.findall(r'"([\w-]+)==([\w.]+)', re.findall(r"^CLIENTS = \[.*?^\]", setup, re.MULTILINE | re.DOTALL)[0])
    pinned += [tuple(package.rsplit("@", 1)) for package in npm_clients.PACKAGES]
    pinned += [tuple(library.split("==")) for library in (old_library.LIBRARY, old_library.TWISTED)]
    pinned += programs.DEBIANS_CLIENTS.items()
    rows = table(CLIENTS, "client", "version")
    told = [
        (row["client"].split(",")[0], re.findall(r"\*\*(.*?)\*\*", row["version"])[0])
        for row in rows
        if row["version"].startswith("**")
    ]
    assert sorted(told) == sorted(pinned)


# -- docs/internals.md


def test_what_is_told_of_a_class_is_in_it():
    """`Class.name` is one of the package's classes, and its module knows the name."""
    modules = [path.read_text() for path in PACKAGE.rglob("*.py")]
    told = [name for name in names(prose(INTERNALS)) if re.fullmatch(r"[A-Z]\w+\.\w+", name)]
    assert len(told) > 8
    for name in told:
        owner, _, attribute = name.partition(".")
        homes = [text for text in modules if re.search(rf"^class {owner}\b", text, re.MULTILINE)]
        assert any(re.search(rf"\b{attribute}\b", text) for text in homes), name


def test_the_tree_is_the_packages():
    """Every folder, and every module at the top, once."""
    tree = blocks(INTERNALS, "text")[0]
    told = [name for line in tree.splitlines() for name in re.findall(r"[\w/]+(?:/|\.py)(?=\s)", line.lstrip()[:32])]
    folders = {path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE}
    modules = [path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")]
    assert sorted(told) == sorted([*modules, *(f"{folder.relative_to(PACKAGE)}/" for folder in folders)])


def test_the_phases_are_the_masters():
    """All of them, by the words that `status` uses."""
    told = [names(row["phase"])[0] for row in table(INTERNALS, "phase", "means")]
    assert told == [phase.value for phase in phases.Phase]


def test_every_row_of_operations_has_its_test():
    """A file that is linked, and in it the test that is named; or it was tried by hand."""
    rows = table(OPERATIONS, "what", "goes away or changes", "what happens")
    assert len(rows) > 30
    for row in rows:
        files = re.findall(r"\]\(\.\./([^)]+)\)", row["held by"])
        assert files or row["held by"] == "by hand", row
        for name in names(row["held by"]):
            assert f"def {name}(" in (CHECKOUT / files[0]).read_text(), name
