"""``python -m bench`` from the checkout, which is what ``bin/bench`` runs."""

from __future__ import annotations

import sys

from bench.run import main

sys.exit(main())
