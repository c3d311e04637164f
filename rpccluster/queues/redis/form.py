"""Verbs and answers in the form in which the script takes and gives them. Does no I/O; runs in the keeper.

The script's numbers are doubles, so what may be larger (tokens, the numbers of sessions) travels as text of one length.
Times are whole milliseconds. Text travels as raw bytes: the script's MessagePack knows no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgpack import Packer, unpackb

from rpccluster.errors import LeaseLost, QueueDown, QueueFull, RPCClusterError, StaleToken
from rpccluster.queues import engine as verbs
from rpccluster.queues.engine import Answer, DeadItem, Item, Rules, Verb

__all__ = ["GOES_ON", "NO_LIMIT", "answer_of", "pack", "piece_of", "rules_form", "undo_form", "unpack", "verb_form"]

NO_LIMIT = (1 << 53) - 1
_MOST = 1 << 31
_pack = Packer(use_bin_type=False, unicode_errors="surrogatepass").pack


def pack(thing: object) -> bytes:
    """Return ``thing`` as the script's MessagePack."""
    packed: bytes = _pack(thing)
    return packed


def unpack(reply: bytes) -> Any:
    """Return what the script has packed; text is bytes."""
    return unpackb(reply, raw=True, strict_map_key=False)


def rules_form(rules: Rules) -> bytes:
    """Return the rules of a queue as the script keeps them."""
    most = [NO_LIMIT if limit is None else limit for limit in (rules.max_size, rules.max_bytes)]
    times = (_milliseconds(rules.expires or 0), _milliseconds(rules.dedup_window))
    return pack([_milliseconds(rules.lease), rules.max_attempts, *most, *times])


def _milliseconds(seconds: float) -> int:
    return min(NO_LIMIT >> 2, max(1, round(seconds * 1000))) if seconds > 0 else 0


def _number(value: int | None) -> Any:
    return False if value is None else f"{value:020d}"


def _name(value: str | None) -> Any:
    return False if value is None else value


def _pairs(pairs: Any) -> tuple[list[str], list[int]]:
    return [str(id) for id, _ in pairs], [attempt for _, attempt in pairs]


# -- verbs


def _put(verb: verbs.Put) -> list[Any]:
    session, seq = (False, False) if verb.session is None else (verb.session, _number(verb.seq))
    expires = False if verb.expires is None else max(1, _milliseconds(verb.expires))
    form = [verb.queue, list(verb.values), session, seq, _milliseconds(verb.delay), verb.priority, expires]
    return [*form, _name(verb.dedup_id), _name(verb.group), _number(verb.token)]


def _get(verb: verbs.Get) -> list[Any]:
    return [verb.queue, verb.session, min(verb.n, _MOST), _number(verb.seq), *_pairs(verb.ack), verb.most_bytes]


_FORMS: dict[type, tuple[str, Callable[[Any], list[Any]]]] = {
    verbs.Put: ("put", _put),
    verbs.Get: ("get", _get),
    verbs.Ack: ("ack", lambda verb: [verb.queue, *_pairs(verb.pairs), _number(verb.token)]),
    verbs.Nack: (
        "nack",
        lambda verb: [
            verb.queue,
            str(verb.id),
            verb.attempt,
            _milliseconds(verb.delay),
            verb.error,
            verb.dead,
        ],
    ),
    verbs.Touch: ("touch", lambda verb: [verb.queue, str(verb.id), verb.attempt]),
    verbs.Peek: ("peek", lambda verb: [verb.queue, min(verb.n, _MOST), verb.most_bytes]),
    verbs.Dead: ("dead", lambda verb: [verb.queue, min(verb.n, _MOST), verb.most_bytes]),
    verbs.Retry: ("retry", lambda verb: [verb.queue, False if verb.id is None else str(verb.id)]),
    verbs.Purge: ("purge", lambda verb: [verb.queue, "0"]),
    verbs.Stats: ("stats", lambda verb: [verb.queue]),
    verbs.Pause: ("pause", lambda verb: [verb.queue]),
    verbs.Resume: ("resume", lambda verb: [verb.queue]),
    verbs.List: ("list", lambda verb: []),
    verbs.EndSession: ("end_session", lambda verb: [verb.session, verb.counts]),
}

#: Those that a batch does a piece of.
GOES_ON = (verbs.Purge, verbs.Retry)


def verb_form(verb: Verb) -> list[Any]:
    """Return a verb as the script takes it."""
    name, form = _FORMS[type(verb)]
    return [name, *form(verb)]


def piece_of(verb: Verb, form: list[Any], answer: list[Any]) -> list[Any] | None:
    """Return what the script has to be asked for the rest of a purge or a retry; None when there is none."""
    if answer[0] or not answer[2]:
        return None
    return form if isinstance(verb, verbs.Retry) else [*form[:2], answer[2]]


def undo_form(form: list[Any], answer: list[Any]) -> list[Any] | None:
    """Return what gives the items back that a get has taken; None for what a repeat is answered with, and the rest."""
    is_unknown = form[0] == "get" and form[4] is False and not answer[0]
    return ["undo", form[1], *answer[1][2:4]] if is_unknown else None


# -- answers


def _count(verb: Verb, answer: list[Any]) -> int:
    count: int = answer[1]
    return count


def _items(verb: Verb, answer: list[Any]) -> list[Item]:
    return [Item(int(id), attempt, value) for id, attempt, value, *_ in answer[1]]


def _dead(verb: Verb, answer: list[Any]) -> list[DeadItem]:
    return [DeadItem(int(id), attempts, value, _text(error)) for id, attempts, value, error in answer[1]]


def _stats(verb: Verb, answer: list[Any]) -> dict[str, object]:
    *counts, paused = answer[1]
    return {**dict(zip(("ready", "delayed", "leased", "dead", "bytes"), counts)), "paused": bool(paused)}


_ANSWERS: dict[type, Callable[[Any, list[Any]], Answer]] = {
    verbs.Put: lambda verb, answer: list(range(answer[1], answer[1] + answer[2])),
    verbs.Get: _items,
    verbs.Peek: _items,
    verbs.Dead: _dead,
    verbs.Retry: _count,
    verbs.Purge: _count,
    verbs.EndSession: _count,
    verbs.Stats: _stats,
    verbs.List: lambda verb, answer: [_text(name) for name in answer[1]],
}


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogatepass")


def _past(verb: Any, last: bytes) -> Exception:
    return ValueError(f"found put {verb.seq} of a session whose last one was {int(last)}, expected that or a later one")


def _full(verb: Any, present: int, most: int, more: int, what: str) -> Exception:
    text = f"{verb.queue} has {present} {what} of at most {most}, found {more} more"
    return QueueFull(text, is_for_good=more > most)


_REFUSALS: dict[bytes, Callable[..., Exception]] = {
    b"lost": lambda verb, ids: LeaseLost(", ".join(map(_text, ids))),
    b"stale": lambda verb, seen: StaleToken(f"the queue {verb.queue} has seen token {int(seen)}, found {verb.token}"),
    b"full": lambda verb, present, most: _full(verb, present, most, len(verb.values), "items"),
    b"bytes": lambda verb, present, most: _full(verb, present, most, sum(map(len, verb.values)), "bytes"),
    b"memory": lambda verb: QueueDown("Redis is out of memory: raise its maxmemory, or take items out"),
    b"past": _past,
}


def answer_of(verb: Verb, answer: list[Any]) -> Answer:
    """Return the script's answer to a verb as the engine gives it."""
    if answer[0]:
        refusal: Exception = _REFUSALS[answer[0]](verb, *answer[1:])
        assert isinstance(refusal, (RPCClusterError, ValueError))
        return refusal
    read = _ANSWERS.get(type(verb))
    return True if read is None else read(verb, answer)
