"""Keeps the items of queues in a Redis, which several keepers on several hosts may share. Runs in the keeper.

Importing `rpccluster.queues.redis.engine` needs redis-py, of the extra ``redis``; the rest does not.
"""
