"""The pools of the cluster that a process belongs to: tasks go to its dispatcher (`rpccluster.services.dispatcher`)."""
