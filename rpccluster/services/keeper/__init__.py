"""The keeper: keeps the queues of a cluster, gives their items to consumers, and holds calls that wait for one."""
