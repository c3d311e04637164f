"""``python -m rpccluster``: the same program as the console script."""

from __future__ import annotations

import sys

if not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
    # -m has put the current folder first: whatever lies there would be imported in the place of others' modules
    sys.path.append(sys.path.pop(0))

from rpccluster.cli.main import main

main()
