"""Buys at the shop: one call, several at once, many in one write, and a call that fails.

python client.py [ADDRESS]
"""

from __future__ import annotations

import sys

from rpccluster import CallTimeout, Client, RemoteError


def main(address: str) -> None:
    with Client(address, timeout=5) as client:
        print("An apple costs", client.call("price", "apple"))

        # Several at once: they wait in the worker together, and not one after another.
        orders = [client.call_async("order", {name: 2}) for name in ("apple", "pear", "plum")]
        for order in orders:
            print("Ordered:", order.result())

        # Many in one write.
        with client.batch() as batch:
            for number in range(1000):
                batch.call("total", {"plum": number})
        print("All totals together:", sum(batch.results()))

        try:
            client.call("price", "melon")
        except RemoteError as error:
            print("Refused:", error.type, error.message)

        try:
            client.call("order", {"pear": 1}, timeout=0.01)
        except CallTimeout:
            print("Not waited for: the order may go through all the same")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["127.0.0.1:18800"])
