"""What may happen in an afternoon, and how often: tables of options, of events, and of rare moments. Data alone."""

from __future__ import annotations

__all__ = [
    "AT_EVENTS",
    "EVENTS",
    "IN_AN_UPGRADE",
    "OF_LEADERSHIP",
    "OF_LEDGERS",
    "OF_PAGES",
    "OF_POOLS",
    "OF_QUEUES",
    "OPTIONS",
    "OVERLAPS",
    "PLUGIN_OPTIONS",
    "POOL_OPTIONS",
    "RARE",
    "WEIGHTS",
]

OPTIONS: dict[str, tuple[str, ...]] = {
    "number_workers": ("1", "1", "2", "2", "3"),
    "timeout": ("0", "5", "30"),
    "graceful_timeout": ("1", "3", "6"),
    "restart_delay": ("0.5", "1"),
    "restart_delay_max": ("2", "8"),
    "max_lifetime": ("0", "0", "0", "15"),
    "rebalance": ("true", "true", "false"),
    "worker_connections": ("10000", "10000", "3"),
}

PLUGIN_OPTIONS: dict[str, tuple[str, ...]] = {
    "processes": ("1", "1", "1", "2"),
    "restart": ("always", "always", "on-failure", "never"),
    "restart_delay": ("0.5", "1"),
    "restart_delay_max": ("2", "8"),
    "essential": ("false", "false", "false", "false", "true"),
    "ready": ("started", "started", "notify"),
    "ready_timeout": ("2", "10"),
    "stop_timeout": ("1", "3"),
    "overlap": ("none", "none", "successor"),
    "timeout": ("0", "0", "5"),
    "max_lifetime": ("0", "0", "0", "20"),
}

POOL_OPTIONS: dict[str, tuple[str, ...]] = {
    "processes": ("1", "1", "2"),
    "spare": ("0", "1", "1", "2"),
    "restart_delay": ("0.5", "1"),
    "restart_delay_max": ("2", "8"),
    "stop_timeout": ("1", "3"),
    "max_lifetime": ("0", "0", "15"),
}

#: What may happen, and how often beside the others.
WEIGHTS = {
    "kill a worker": 4.0,
    "hang a worker": 3.0,
    "TERM to a worker": 2.0,
    "recycle a worker": 3.0,
    "stop a master for a while": 2.0,
    "kill a master": 2.0,
    "fail forks": 1.0,
    "fill the table of descriptors": 1.0,
    "fill the disk": 0.7,
    "remove a path": 0.5,
    "come": 6.0,
    "control": 3.0,
    "control a plugin": 3.0,
    "reload": 4.0,
    "TTIN": 2.0,
    "TTOU": 2.0,
    "USR2": 2.0,
    "WINCH": 1.0,
    "USR1": 1.0,
    "CONT": 1.0,
    "TERM": 0.2,
    "INT": 0.1,
    "QUIT": 0.05,
}

#: Events with which something may happen, a moment later.
EVENTS = (
    *(
        ("message", name)
        for name in ("Give", "Adopted", "Release", "Released", "Reply", "DonorGone", "Retire", "Ready")
    ),
    ("stage", "none, booting"),
    ("stage", "booting, committing"),
    ("stage", "booting, committing"),
    ("stage", "committing, done"),
    ("phase", "joining, the first workers have booted"),
    ("phase", "standby, the old master sent Go"),
    ("phase", "standby, the old master sent Go"),
    ("fault", "worker killed"),
    ("fault", "died in the middle"),
)

OF_PAGES = ("kill the page", "kill the page", "kill a worker", "USR2", "reload", "TERM")

OF_QUEUES = ("kill the keeper", "kill the keeper", "kill the keeper", "USR2", "reload")

OF_LEDGERS = ("come", "come", "come", "kill a worker", "kill a worker", "recycle a worker", "TTIN", "USR2", "reload")

OF_POOLS = ("kill a task process", "kill a task process", "kill the dispatcher", "control a pool", "USR2", "reload")

OVERLAPS = ("none", "successor")

OF_LEADERSHIP = (
    *("give the lead away", "give the lead away", "take the store down", "hang the coordinator", "hand the lead over"),
    *("kill the coordinator", "USR2", "reload", "TERM"),
)

AT_EVENTS = (
    *("kill a worker", "hang a worker", "recycle a worker", "stop a master for a while", "kill a master", "control"),
    *("kill a master", "TERM", "INT", "TTIN", "WINCH", "reload", "USR1", "USR2", "fail forks"),
    *("fill the table of descriptors", "fill the disk"),
)

#: Moments that hardly any afternoon meets by chance: with the event, one of these happens.
RARE = (
    (("stage", "none, booting"), ("TTIN", "TTOU", "WINCH")),
    (("phase", "standby, the old master sent Go"), ("TERM", "INT")),
    (("phase", "starting, started by an old master"), ("TERM to the new master", "INT to the new master")),
    (("phase", "joining, the first workers have booted"), ("TERM to the new master", "INT to the new master")),
    (("phase", "joining, the first workers have booted"), ("TTIN to the new master",)),
    (("phase", "standby, the old master sent Go"), ("TERM to the new master", "INT to the new master")),
    (("phase", "running, graceful stop"), ("TERM", "WINCH", "TTIN", "INT")),
    (("phase", "running, quick stop"), ("TERM", "WINCH", "TTIN", "INT", "QUIT")),
)

IN_AN_UPGRADE = (
    ("stage", "none, booting"),
    ("stage", "booting, committing"),
    ("phase", "standby, the old master sent Go"),
    ("phase", "standby, the old master sent Go"),
    ("stage", "committing, done"),
)
