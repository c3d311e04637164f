"""The hot room's own methods: ``rpc.call`` bounds a call and ``rpc.cancel`` ends some. Runs in the worker."""
