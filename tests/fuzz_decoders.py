"""Coverage-guided fuzzing of the decoders: `tests/protocol/differential.py` on whatever atheris makes up.

Run by hand, from the checkout, after ``pip install -e .[fuzz]``; the arguments are libFuzzer's::

    mkdir -p .fuzz
    .venv/bin/python tests/fuzz_decoders.py -max_len=4097 -max_total_time=3600 .fuzz tests/protocol/corpus

What is new to it goes to the first folder. What was wrong is kept in ``tests/protocol/corpus``, by a name that says
what it is: `tests/protocol/test_corpus.py` runs all that is there.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["rpccluster.protocol"]):
    from protocol.differential import check

if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
