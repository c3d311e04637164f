"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from rpccluster.config import Sources, load
from rpccluster.testing import RunningCluster

README = Path(__file__).resolve().parent.parent.parent / "README.md"


def _blocks(language: str, word: str) -> list[str]:
    """The code blocks of a language in which ``word`` stands."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if word in block]


def _run(block: str, names: dict[str, Any]) -> None:
    """Run it as it stands; what awaits, in a coroutine."""
    if "await" in block:
        block = f"async def main():\n{textwrap.indent(block, '    ')}\nimport asyncio\nasyncio.run(main())"
    exec(block, names)


def test_the_service_and_the_client(make_cluster, capsys):
    """The service of the first lines is served, and the client's, five at most each, print what they should."""
    running: RunningCluster = make_cluster(service="shop:Shop", number_workers=1)
    running.write_module("shop", _blocks("python", "class Shop")[0])
    running.start()
    blocks = _blocks("python", "127.0.0.1:18800")
    names: dict[str, Any] = {}
    for block in blocks:
        assert len([line for line in block.splitlines() if line]) <= 5
        _run(re.sub(r"127\.0\.0\.1:1880\d", running.address, block), names)
    assert capsys.readouterr().out.splitlines() == ["3", "[3, 0]", "3000", "3", "3"]


def test_the_configuration(tmp_path):
    """The file of the first lines names the service beside it."""
    path = tmp_path / "shop.ini"
    path.write_text(_blocks("ini", "[cluster]")[0])
    options = load(Sources(str(path))).options
    assert (options.service, options.pythonpath) == ("shop:Shop", (str(tmp_path),))
