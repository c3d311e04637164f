"""Who may call what, and how often: the rules of ``[access]`` in a worker. Others import `Access` and `Rates`."""
