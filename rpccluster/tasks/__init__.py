"""The process of a pool: it runs one task at a time, without gevent. Runs in the forked child.

`rpccluster.pools` decides which task goes to which process, and `rpccluster.master.kinds.tasks` kills at the limits.
"""
