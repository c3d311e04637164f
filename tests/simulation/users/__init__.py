"""Who uses the cluster and what happens to it: callers, commands, fate."""
