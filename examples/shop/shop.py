"""Sells fruit. Every worker has a shop of its own, so what they must agree on would belong in a database."""

from __future__ import annotations

import time

import rpccluster


class Shop(rpccluster.Service):
    def worker_started(self, worker: object) -> None:
        """Runs once in each worker, before it serves."""
        self.prices = {"apple": 30, "pear": 45, "plum": 12}

    def price(self, name: str) -> int:
        """What one costs, in cents."""
        return self.prices[name]

    def total(self, basket: dict[str, int]) -> int:
        """What all that is in the basket costs, in cents."""
        return sum(self.price(name) * number for name, number in basket.items())

    @rpccluster.rpc(timeout=2)
    def order(self, basket: dict[str, int]) -> str:
        """Orders what is in the basket; takes a moment, in which the worker serves other calls."""
        total = self.total(basket)
        time.sleep(0.1)
        return f"{sum(basket.values())} pieces for {total / 100:.2f}"
