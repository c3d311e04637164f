"""Loads for peers whose protocol the generator in C does not speak, a program each, in that peer's own client.

They keep the generator's rules (`bench.loads.closed_loop`), but being Python they are the limit, not the server.
"""
