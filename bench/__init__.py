"""Benchmarks of rpccluster beside the peers its users could pick instead. Never imported by the package."""
