"""``rpccluster stub``: typed stubs of a service's methods, for editors and type checkers. In the process of the user.

`stub_of` is pure. What a server tells is text from outside: only what parses as a signature, and annotations of
Python's own types, go into the stub.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterator
from typing import Any

import click

from rpccluster.cli.calling.call import faults_told
from rpccluster.client import Client

__all__ = ["COMMANDS", "stub_of"]

_HEAD = '''"""The methods of {address}, as `rpccluster stub` has found them.

    from typing import cast
    methods = cast("Methods", client.proxy)
"""

from typing import Any, Optional, Union
'''
_KNOWN = {"Any", "Optional", "Union", "bool", "bytes", "dict", "float", "int", "list", "object", "str", "tuple"}
_OPTIONS = "timeout: Optional[float] = ..., idempotent: bool = ..."
_INDENT = "    "

Tree = dict[str, Any]  # methods and, by the parts of names with a dot, further trees


@click.command()
@click.argument("address")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="seconds for the question",
)
def stub(address: str, timeout: float) -> None:
    """Print typed stubs (.pyi) of the methods that a server at ADDRESS has, for client.proxy."""
    with faults_told((address,)), Client(address, timeout=timeout) as client:
        methods = client.call("rpc.discover")
    click.echo(stub_of(methods, str(client.address)), nl=False)


def stub_of(methods: Any, address: str) -> str:
    """Return the stub of ``methods``, the answer of ``rpc.discover``: a class for threads, and one for asyncio."""
    tree: Tree = {}
    left_out = []
    for name, told in sorted(methods.items()) if type(methods) is dict else ():
        parts = name.split(".") if type(name) is str else [""]
        if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts) or not _fits(tree, parts):
            left_out.append(name)
            continue
        inner = tree
        for part in parts[:-1]:
            inner = inner.setdefault(part, {})
        inner[parts[-1]] = (_signature(_text(told, "signature")), _text(told, "doc"))
    lines = [_HEAD.format(address=ascii(address)[1:-1])]
    for title, is_async in (("Methods", False), ("AioMethods", True)):
        lines += ["", f"class {title}:", *_class(tree, is_async, 1)]
    lines += [f"# left out, since it is no name of Python's: {name!a}" for name in left_out]
    return "\n".join(lines) + "\n"


def _fits(tree: Tree, parts: list[str]) -> bool:
    """Return whether no part of a name is a method and a group of methods at once."""
    for part in parts[:-1]:
        tree = tree.get(part, {})
        if type(tree) is tuple:
            return False
    return parts[-1] not in tree


def _text(told: Any, key: str) -> str:
    found = told.get(key) if type(told) is dict else None
    return found if type(found) is str else ""


def _class(tree: Tree, is_async: bool, depth: int) -> Iterator[str]:
    indent = _INDENT * depth
    for name, found in tree.items():
        if type(found) is dict:
            title = f"_{name.capitalize()}"
            yield f"{indent}class {title}:"
            yield from _class(found, is_async, depth + 1)
            yield f"{indent}@property"
            yield f"{indent}def {name}(self) -> {title}: ..."
            continue
        (params, returns), doc = found
        word = "async def" if is_async else "def"
        yield f"{indent}{word} {name}({params}) -> {returns}:{'' if doc else ' ...'}"
        if doc:
            yield f"{indent}{_INDENT}{_docstring(doc)}"
    if not tree:
        yield f"{indent}pass"


def _docstring(doc: str) -> str:
    return (
        ascii(doc.partition("\n")[0][:1000])
        if not doc.isascii() or "\\" in doc or '"' in doc
        else (f'"""{doc.partition(chr(10))[0][:1000]}"""')
    )


def _signature(text: str) -> tuple[str, str]:
    """Return the parameters and the type of the result; any parameters if ``text`` is no signature."""
    try:
        made = ast.parse(f"def f{text}: ...").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        made = []
    if len(made) != 1 or not isinstance(made[0], ast.FunctionDef):
        return f"self, *params: Any, {_OPTIONS}", "Any"
    arguments = made[0].args
    plain = [*arguments.posonlyargs, *arguments.args]
    optional = len(plain) - len(arguments.defaults)
    params = ["self"]
    for place, each in enumerate(plain):
        params.append(f"{each.arg}: {_type(each.annotation)}{' = ...' if place >= optional else ''}")
    if plain:
        params.append("/")  # params have no names on the wire
    params.append(f"*{arguments.vararg.arg}: {_type(arguments.vararg.annotation)}" if arguments.vararg else "*")
    return ", ".join([*params, _OPTIONS]), _type(made[0].returns)


def _type(annotation: ast.expr | None) -> str:
    """Return an annotation that has no other names than Python's own; else Any."""
    if annotation is None:
        return "Any"
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name) and node.id in _KNOWN:
            continue
        if isinstance(node, ast.Constant) and node.value is None:
            continue
        if not isinstance(node, (ast.Subscript, ast.Tuple, ast.BinOp, ast.BitOr, ast.Load)):
            return "Any"
    return ast.unparse(annotation)


COMMANDS = (stub,)
