"""Fixtures that tests of several folders share. Owns none of them: each lives beside what it makes."""

from __future__ import annotations

from npm_clients import npm_clients
from old_library import old_library, old_tests
from own_network import own_network

__all__ = ["npm_clients", "old_library", "old_tests", "own_network"]
