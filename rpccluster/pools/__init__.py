"""Pools of task processes: dispatching, and what a submitter has of it.

The folder is not named `pool`, because `rpccluster.pool` is a function. `core` decides; `rpccluster.TaskPool` and the
dispatcher's service carry it out.
"""
