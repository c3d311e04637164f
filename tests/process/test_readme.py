"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from rpccluster.config import Sources, load
from rpccluster.testing import RunningCluster

README = Path(__file__).resolve().parent.parent.parent / "README.md"


def _block(language: str, word: str) -> str:
    """The first code block of a language in which ``word`` stands."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if word in block)


def test_the_service_and_the_client(make_cluster, capsys):
    """The service of the first lines is served, and the client's lines print what they should."""
    running: RunningCluster = make_cluster(service="shop:Shop", number_workers=1)
    running.write_module("shop", _block("python", "class Shop"))
    running.start()
    exec(_block("python", "Client(").replace("127.0.0.1:18800", running.address), {})
    assert capsys.readouterr().out == "3\nNoMethodError 'nope' method not found\n"


def test_the_configuration(tmp_path):
    """The file of the first lines names the service beside it."""
    path = tmp_path / "shop.ini"
    path.write_text(_block("ini", "[cluster]"))
    options = load(Sources(str(path))).options
    assert (options.service, options.pythonpath) == ("shop:Shop", (str(tmp_path),))
