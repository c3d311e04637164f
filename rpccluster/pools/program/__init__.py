"""`rpccluster.TaskPool`: a pool in any program, which dispatches by itself; a master of its own has the processes."""
