"""What processes say to each other: there and back, and what another version might say."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.errors import UnknownMessage
from rpccluster.ipc import messages
from rpccluster.ipc.messages import (
    TYPES,
    Accept,
    Adopted,
    Asked,
    AskMaster,
    BootFailed,
    CancelCall,
    Closed,
    Collect,
    Counted,
    DonorGone,
    Drop,
    Findings,
    Give,
    Go,
    GroupsReplaced,
    GroupStopped,
    Inquire,
    Keep,
    KillTask,
    LeadOrder,
    LeadTold,
    Listen,
    MasterTold,
    Message,
    Noted,
    Pools,
    Present,
    Propose,
    Queues,
    Ready,
    Refused,
    Release,
    Released,
    ReopenLogs,
    Reply,
    Retire,
    Serving,
    StopGroup,
    Switch,
    Switched,
    TaskProcess,
    TaskProcessGone,
    TookOver,
    Vote,
    WantsToRetire,
    decode,
    encode,
)
from rpccluster.protocol.codec import encoded

EVERY = [
    Ready(["sum", "rpc.ping"]),
    Ready([]),
    Ready(["sum"], ["/srv/shop.py"], "compiled"),
    BootFailed("service", "ImportError: no module named 'x'\n  File …"),
    WantsToRetire("max_requests"),
    Accept(),
    Retire(30.0, False),
    Retire(0.5, True),
    ReopenLogs(),
    ReopenLogs("/var/log/access.log"),
    Keep(1 << 32 | 7, [[1 << 32 | 7, ["127.0.0.1", 4711], []], [1 << 32 | 8, ["::1", 4712], ["key:shop"]]]),
    Noted(1 << 32 | 7),
    Noted(1 << 32 | 7, False, "ledger_full"),
    Drop([1 << 32 | 7]),
    Collect(),
    Serving(4711),
    Serving(4711, 7),
    Go(),
    TookOver(),
    Counted({"calls": 3}),
    Asked("term"),
    Asked("scale", 5),
    Retire(0.5, True, True),
    Release(64),
    Release(64, 1 << 20),
    Released(3),
    Give(1 << 32 | 7, ["127.0.0.1", 4711], False, b"\x94\x00", b"\xff\x00", [[1, 2], [1, (1 << 32) - 1]]),
    Give((1 << 63) - 1, [], True, b"", b"", []),
    Give(8, ["unix"], False, b"", b"", [], "dispatcher"),
    Give(9, ["127.0.0.1", 4711], True, b"", b"", [], "keeper", ["key:web", "cert:shop"], True, 1.5, 9.25, 39.5),
    CancelCall(10, 3, 7),
    CancelCall(10, 3, 7, True),
    Adopted(5),
    Refused(6),
    Reply(7, 8, b"\x94\x01\x05\xc0\xc0"),
    Closed(9),
    DonorGone(10, False),
    DonorGone(11, True),
    DonorGone(11, False, 12),
    Listen(),
    Go(["plugin:dict", "plugin:web"]),
    TookOver(["plugin:dict"]),
    StopGroup("plugin:dict"),
    GroupStopped("plugin:dict"),
    GroupsReplaced(),
    GroupsReplaced([["plugin dict", "no such module"]]),
    Propose(3, 2, {"price": "1"}, {"price": "x.ini:3"}),
    Vote(3),
    Vote(3, "a price below nothing"),
    Switch(2, {"price": "1"}, {}),
    Switch(2, {"price": "1"}, {}, {"call_timeout": 2.0}),
    Switched(2),
    TaskProcess(7, "resize", 1, 4711),
    TaskProcess(7, "resize", 1, 4711, 3),
    TaskProcessGone(7, "resize", 1, 4711, 12, "timed_out", 9, 0, 1.5),
    TaskProcessGone(7, "resize", 1, 4711, 12, "lost", 9, 1, 1.5, 12),
    KillTask(7, 12),
    Pools({"resize": {"queue_size": 10}}),
    Inquire(1, "tasks", ["resize"]),
    Findings(1, [{"id": 5}]),
    Findings(1, None, "no pool is named x"),
    Queues(True, 5.0, {"jobs": {"lease": 60.0}}),
    LeadOrder(3),
    LeadTold(0, "", "unix:///a", 7),
    LeadTold(3, "the store is away", "", 0),
    Present("serving", 1764288000.25),
    AskMaster(3, 7, "scale", ["workers", "+1"]),
    MasterTold(3, "", {"groups": [{"name": "workers", "processes": []}]}),
    MasterTold(4, "ValueError: found nothing", None),
]


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_every_message_comes_out_as_it_went_in(message: Message) -> None:
    """Value and type."""
    assert decode(encode(message)) == message
    assert type(decode(encode(message))) is type(message)


def test_every_type_is_tried_here() -> None:
    """A type that is added comes into the list above."""
    assert {type(message) for message in EVERY} == set(TYPES.values())


def test_the_numbers_stay() -> None:
    """Two versions speak with each other during an upgrade: a new type takes a new number."""
    begins: list[type] = [Ready, BootFailed, WantsToRetire, Accept, Retire, ReopenLogs, Serving, Go]
    begins += [Release, Released, Give, Adopted, Refused, Reply, Closed, DonorGone, TookOver, Counted, Asked, Listen]
    begins += [StopGroup, GroupStopped, GroupsReplaced, Propose, Vote, Switch, Switched]
    begins += [TaskProcess, TaskProcessGone, KillTask, Pools, Inquire, Findings, CancelCall]
    assert [TYPES[number] for number in range(len(begins))] == begins
    assert encode(Go()) == b"\x91\x07"


def test_a_number_is_given_once() -> None:
    """A second type of the same number is noticed at once, and every type is a public name."""
    with pytest.raises(AssertionError, match="Go has the number 7"):
        messages._type(7)(tuple)
    assert {type_.__name__ for type_ in TYPES.values()} <= set(messages.__all__)


def test_text_that_is_no_unicode_passes() -> None:
    """A traceback may show a file name that is not UTF-8."""
    message = BootFailed("service", "no such file: '\udcff.py'")
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x05",
        b"\xa1x",
        b"\x91\xa1x",
        b"\x91\xc0",
        b"\x91\x90",
        b"\x91\xcd\x03\xe8",
        b"\x91\x00",
        b"\x80",
        b"\x81\x07\x00",
        b"\x91\xff",
        b"\x92\xf8\x90",
        b"\x92\x0a\x05",
    ],
    ids=repr,
)
def test_what_this_version_does_not_know_is_told(packet: bytes) -> None:
    """`UnknownMessage`, whatever it is, never a message by accident."""
    with pytest.raises(UnknownMessage, match=f"^found a packet of {len(packet)} bytes"):
        decode(packet)


@given(st.binary(max_size=100))
def test_no_packet_breaks_the_decoder(packet: bytes) -> None:
    """A message or `UnknownMessage`."""
    try:
        message = decode(packet)
    except UnknownMessage:
        return
    assert type(message) in TYPES.values()


@given(st.sampled_from(sorted(TYPES)), st.lists(st.integers() | st.text() | st.lists(st.text()), max_size=9))
def test_a_message_of_another_number_of_fields(number: int, fields: list[object]) -> None:
    """What a later version added is ignored; what it left out has its default, or the message is none."""
    packet = msgpack.packb([number, *fields], default=str)
    type_ = TYPES[number]
    if len(fields) < len(type_._fields) - len(type_._field_defaults):
        with pytest.raises(UnknownMessage):
            decode(packet)
    else:
        known = msgpack.unpackb(packet)[1 : 1 + len(type_._fields)]
        assert decode(packet) == type_(*known)


# -- what another version may say

#: Of each type one message none of whose fields is at its default.
TELLING: dict[type, Any] = {
    type(message): message
    for message in EVERY
    if not any(message._field_defaults.get(name, ...) == value for name, value in zip(message._fields, message))
}

every_type = pytest.mark.parametrize("number", sorted(TYPES), ids=lambda number: TYPES[number].__name__)


def grown(type_: Any) -> Any:
    """``type_`` as a later version might have it: with one field more."""
    defaults = [*type_._field_defaults.values(), "as ever"]
    return namedtuple(type_.__name__, [*type_._fields, "added"], defaults=defaults)  # type: ignore[misc]


@every_type
@pytest.mark.parametrize("added", [7, "text", None, [], {"a": [b"b"]}, False], ids=repr)
def test_a_field_more_is_ignored(number: int, added: Any) -> None:
    """A later version says it; this one understands the rest."""
    message = TELLING[TYPES[number]]
    packet = msgpack.packb([number, *message, added])
    assert decode(packet) == message
    assert type(decode(packet)) is TYPES[number]


@every_type
def test_a_field_fewer_has_its_default(number: int) -> None:
    """A later version hears this one: what it added is as ever; what it says with that at rest is as short as ours."""
    message = TELLING[TYPES[number]]
    later = {number: grown(TYPES[number])}
    assert decode(encode(message), later) == (*message, "as ever")


@every_type
def test_each_field_that_came_later_may_be_missing(number: int) -> None:
    """As an earlier version says it: the fields that it knows, the others at their defaults."""
    type_, message = TYPES[number], TELLING[TYPES[number]]
    for known in range(len(type_._fields) - len(type_._field_defaults), len(type_._fields)):
        assert decode(msgpack.packb([number, *message[:known]])) == type_(*message[:known])


@every_type
def test_without_what_it_had_from_the_first_it_is_none(number: int) -> None:
    """A guess would lose a connection's replies or its calls: what came with it is refused by its first field."""
    type_, message = TYPES[number], TELLING[TYPES[number]]
    for known in range(len(type_._fields) - len(type_._field_defaults)):
        with pytest.raises(UnknownMessage) as raised:
            decode(msgpack.packb([number, *message[:known]]))
        assert raised.value.refused == (message[0] if known and type(message[0]) is int else None)


def test_what_is_at_its_default_is_not_sent() -> None:
    """So a version that knows less understands all that it could have been told."""
    assert encode(DonorGone(5, True)) == b"\x93\x0f\x05\xc3"
    assert encode(DonorGone(5, True, 6)) == b"\x94\x0f\x05\xc3\x06"


def test_what_the_oldest_protocol_knew_is_what_an_old_master_says() -> None:
    """A field more in these types, that is not at its default, wants a new `PROTOCOL` and `OLDEST_PROTOCOL`."""
    known: dict[type, int] = {Reply: 3, DonorGone: 3}
    # an older new master finds a section of such a kind at fault, or authkey_file, and does not start
    # ``waited`` it may ignore: deadlines of calls that wait are counted anew; ``given_at`` times moves
    # to an older version a connection that is not to be read for a while is like any other
    known[Give] = 12
    known[Go] = 1  # an older new master has no use for ``groups``: it asks for none, and the old one ends its own
    assert messages.OLDEST_PROTOCOL == 2
    assert {type_: len(type_._fields) for type_ in known} == known  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("packet", "refused"), [(b"\x93\x7f\x05\x06", 5), (b"\x91\x7f", None), (b"\x92\x7f\xa1x", None)]
)
def test_an_unknown_kind_tells_by_what_to_refuse_it(packet: bytes, refused: int | None) -> None:
    """Its first field, if that is a number."""
    with pytest.raises(UnknownMessage) as raised:
        decode(packet)
    assert raised.value.refused == refused


def test_a_field_that_is_packed_already_travels_as_it_is() -> None:
    """The answers that the master makes in pieces, for instance; in whatever depth."""
    value = {"rows": [1, {"a": "ä"}], "none": None}
    packed = encoded({"rows": [1, encoded({"a": "ä"})], "none": None})
    assert encode(MasterTold(3, "", packed)) == encode(MasterTold(3, "", value))
    assert decode(encode(MasterTold(3, "", packed))) == MasterTold(3, "", value)
