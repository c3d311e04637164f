"""``python -m rpccluster``: the same program as the console script."""

from __future__ import annotations

from rpccluster.cli.main import main

main()
