"""The stubs of a server's methods: valid Python, whatever the server tells."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from rpccluster.cli.calling.stub import stub_of


def methods_of(text: str, name: str = "Methods") -> dict[str, str]:
    (found,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name]
    return {each.name: ast.unparse(each) for each in found.body if hasattr(each, "name")}


def test_a_method_has_its_params_types_and_docstring() -> None:
    """A default is told as `...`, and a type of the service's own as Any: neither means anything here."""
    told = {
        "signature": "(one: int, other: 'mine.Type' = 5, *more: list[str]) -> dict[str, int]",
        "doc": "Adds.\n\nMore.",
    }
    found = methods_of(stub_of({"sum": told}, "tcp://h:1"))["sum"]
    options = "timeout: Optional[float]=..., idempotent: bool=..."
    assert found.splitlines()[0] == (
        f"def sum(self, one: int, other: Any=..., /, *more: list[str], {options}) -> dict[str, int]:"
    )
    assert "Adds." in found
    assert "async def sum(" in methods_of(stub_of({"sum": told}, "tcp://h:1"), "AioMethods")["sum"]


def test_names_with_dots_are_groups() -> None:
    found = stub_of({"queue.put": {}, "queue.get": {}, "rpc.ping": {"signature": "() -> str", "doc": ""}}, "x")
    assert set(methods_of(found)) == {"_Queue", "queue", "_Rpc", "rpc"}
    assert "def ping(self, *, timeout" in methods_of(found)["_Rpc"]


@pytest.mark.parametrize(
    "methods",
    [
        {"x": {"signature": "(", "doc": '"""'}},
        {"x": {"signature": "(): ...\nimport os\ndef g()", "doc": "\\"}},
        {"x": {"signature": "(a=__import__('os').system('x'))", "doc": "äöü\n"}},
        {"x": {"signature": "(a: os.system('x'))", "doc": None}},
        {"x": {"signature": 5}},
        {"x": 5, "not a name": {}, "class": {}, "a..b": {}, "a": {}, "a.b": {}, "": {}},
        {},
        [1],
        None,
        {"x": {"signature": "(a, /, b, *, c=1, **d) -> 'list[int]'", "doc": 'ends with "'}},
    ],
    ids=repr,
)
def test_whatever_a_server_tells_the_stub_is_python(methods: Any) -> None:
    text = stub_of(methods, "tcp://h:1")
    assert ast.parse(text)
    assert "os" not in {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    assert "__import__" not in text
