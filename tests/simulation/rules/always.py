"""What must hold after every step (`ALWAYS`), whatever a cluster is made of.

Each rule is one function with a sentence. It gets the one that has just taken a step, looks at what that step may have
changed, and raises `Fault`. That a connection is served by one worker at most is held by `World.own`.
"""

from __future__ import annotations

from .children import bounded_processes, kills_have_reasons, one_generation_at_a_time, restarts_pause
from .sleeping import deadlines_wake, nobody_spins
from .upgrades import (
    connections_go_to_the_living,
    one_owner,
    orders_are_passed_on,
    paths_stay,
    pidfile_is_signed,
    stopping_lets_nobody_take_over,
)

__all__ = ["ALWAYS"]

ALWAYS = [
    bounded_processes,
    deadlines_wake,
    nobody_spins,
    restarts_pause,
    one_generation_at_a_time,
    kills_have_reasons,
    stopping_lets_nobody_take_over,
    one_owner,
    pidfile_is_signed,
    paths_stay,
    orders_are_passed_on,
    connections_go_to_the_living,
]
