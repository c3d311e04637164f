"""The services of the package's own: methods that other processes of a cluster call, each in a process of its own.

They run on the engine of the workers (`rpccluster.worker`), and their master treats them as a group of one
(`rpccluster.master.kinds.services.own_service`).
"""
