"""`rpccluster top`: the cluster live in the terminal. Runs in the process that the user starts.

What is known (`snapshots.py`) becomes sections of rows (`sections.py`), which are fitted into the terminal
(`fitting.py`) and drawn by rich (`drawing.py`). Keys change what is shown (`state.py`). `command.py` has the loop, and
`fetching.py` asks the master meanwhile, so that keys never wait. Only `drawing.py` and `command.py` know rich.
"""
