"""The master's side of task processes: their groups, places and limits. Runs in the master.

`rpccluster.tasks` is the process itself; a dispatcher gives it its tasks.
"""
