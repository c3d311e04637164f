"""Calls the shop from asyncio: a hundred orders at once over one connection, and one that is given up.

python client.py [ADDRESS]
"""

from __future__ import annotations

import asyncio
import sys

from rpccluster import CallTimeout, RemoteError, aio


async def main(address: str) -> None:
    async with aio.Client(address, timeout=5) as client:
        print("A pear costs", await client.call("price", "pear"))

        orders = await asyncio.gather(*(client.call("order", {"apple": number}) for number in range(100)))
        print("The last of", len(orders), "orders:", orders[-1])

        try:
            await client.call("price", "melon")
        except RemoteError as error:
            print("Refused:", error.type, error.message)

        try:
            await client.call("order", {"pear": 1}, timeout=0.01)
        except CallTimeout:
            print("Not waited for")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["127.0.0.1:18800"]))
