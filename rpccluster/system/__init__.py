"""The one edge to the operating system: only this folder calls the kernel and the C library for the package.

It decides nothing. These names serve everywhere; files, identities and the launch of a process have modules of their
own.
"""

from __future__ import annotations

from rpccluster.system.clock import Deadline
from rpccluster.system.cpus import allowed_cpus, displace_nobody, pin
from rpccluster.system.descriptors import (
    MSG_NOSIGNAL,
    READABLE,
    WRITABLE,
    Reserve,
    check_listening,
    close_all_but,
    end_for_all,
    keep_alive,
    let_exec_close_all_but,
    make_room_for,
    occupy_standard_descriptors,
    peer_process,
    room_beside,
    self_pipe,
    without_sigpipe,
    write,
)
from rpccluster.system.memory import (
    give_back_freed_memory,
    is_byte_locked,
    keep_freed_memory,
    keep_out_of_collections,
    let_go_of_file,
    lock_byte,
    make_private,
    map_for_this_process,
    reach,
    resident_bytes,
    sealed_memory_file,
)
from rpccluster.system.processes.process import (
    TELL_SIGNAL,
    Exit,
    System,
    die_with_parent,
    forget_what_is_ours,
    set_title,
)
from rpccluster.system.systemd import Activation, PassedDescriptor, notify_systemd

__all__ = [
    "MSG_NOSIGNAL",
    "READABLE",
    "TELL_SIGNAL",
    "WRITABLE",
    "Activation",
    "Deadline",
    "Exit",
    "PassedDescriptor",
    "Reserve",
    "System",
    "allowed_cpus",
    "check_listening",
    "close_all_but",
    "die_with_parent",
    "displace_nobody",
    "end_for_all",
    "forget_what_is_ours",
    "give_back_freed_memory",
    "is_byte_locked",
    "keep_alive",
    "keep_freed_memory",
    "keep_out_of_collections",
    "let_exec_close_all_but",
    "let_go_of_file",
    "lock_byte",
    "make_private",
    "make_room_for",
    "map_for_this_process",
    "notify_systemd",
    "occupy_standard_descriptors",
    "peer_process",
    "pin",
    "reach",
    "resident_bytes",
    "room_beside",
    "sealed_memory_file",
    "self_pipe",
    "set_title",
    "without_sigpipe",
    "write",
]
