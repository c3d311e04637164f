"""The process of a plugin: a function that it calls, or a command that it becomes. Runs in the forked child.

`rpccluster.child.prepare` has prepared the process. The master watches it (`rpccluster.master.kinds`). Nothing here
imports gevent; the plugin may.
"""
