"""Where one process alone serves: its connections wait in the master until its successor is there."""

from __future__ import annotations

from descriptors import open_descriptors

from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.ipc.messages import Adopted, DonorGone, Give, Release, Released, Reply
from rpccluster.ipc.scoreboard import Cell
from rpccluster.master.handover.broker import Broker
from rpccluster.master.handover.brokers import Brokers
from rpccluster.master.handover.placement import GRANT_BYTES, WINDOW
from rpccluster.master.loop import Loop

from ..made_up import ready, retiring
from .rig import Rig


def test_a_retiring_process_gives_all_though_nobody_can_take_them() -> None:
    """Piece by piece; what is held is not sent back to it, and goes to its successor."""
    rig = Rig(holds=True)
    leaves = rig.add(retiring(), WINDOW + 6)
    rig.turn()
    assert rig.granted() == [(leaves, Release(WINDOW, GRANT_BYTES))]
    for cid in range(1, WINDOW + 1):
        rig.gives(leaves, cid)
    rig.says(leaves, Released(WINDOW))
    leaves.row[Cell.CONNECTIONS] = 6
    rig.turn()
    assert rig.releases() == {leaves: 6}
    assert rig.broker.in_transit == WINDOW
    rig.bury(leaves)
    successor = rig.add(ready())
    rig.turn()
    assert successor.given == WINDOW
    rig.close()


def test_each_kind_has_its_own() -> None:
    """Between two masters a connection says whose it is; one of a kind that is not there is let go."""
    before = len(open_descriptors())
    loop = Loop()
    workers, services = Broker(loop, list), Broker(loop, list, holds=True)
    brokers = Brokers(workers, {"dispatcher": services})
    old, ours = channel_pair()
    loop.watch(ours, lambda: None)
    for cid, kind in ((1, ""), (2, "dispatcher"), (3, "keeper")):
        one, other = channel_pair()
        old.send(Give(cid, ["unix"], False, b"", b"", [[5, 9]], kind), [one.fileno()])
        one.close()
        other.close()
    heard_all(brokers, ours)
    assert (workers.in_transit, services.in_transit, brokers.in_transit) == (1, 1, 2)
    assert [message for message, _ in old.receive()] == [Adopted(3)]
    old.send(Reply(2, 5, b"reply"))
    old.send(DonorGone(5, False))
    heard_all(brokers, ours)
    assert services.figures.dropped_replies == workers.figures.dropped_replies == 0
    assert brokers.of("dispatcher") is services
    assert brokers.of("rpc") is brokers.workers is workers
    brokers.close()
    for each in (old, ours):
        loop.unwatch(each)
        each.close()
    loop.close()
    assert len(open_descriptors()) == before


def heard_all(brokers: Brokers, channel: Channel) -> None:
    for passing, descriptors in channel.receive_unopened():
        brokers.hear_old_master(channel, passing, descriptors, 100.0)
