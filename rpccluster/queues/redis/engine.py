"""The engine that keeps items in Redis. Runs in the keeper: one native thread calls it, one batch after another.

A batch is one run of a script, so it is done as a whole or not at all, whatever other keepers do meanwhile. A batch
whose answer did not come is sent again, under its number: what has run already is answered and not run again. When that
fails, too, its verbs are answered `QueueDown`; the consumers' and producers' own numbers make their repeats harmless.

A keeper shows itself with each run. One that has not for ``session_grace`` has lost its sessions: the script, run by
any other keeper, gives their items on. A keeper that starts again under its name takes its sessions over; the one from
before, should it be alive still, is told that it is superseded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rpccluster.errors import EngineFailed, NoSuchQueue, QueueDown, StartError
from rpccluster.queues import engine as verbs
from rpccluster.queues.engine import Answer, Outcome, Rules, Verb
from rpccluster.queues.redis import server
from rpccluster.queues.redis.address import RedisAddress
from rpccluster.queues.redis.form import GOES_ON, answer_of, pack, piece_of, rules_form, undo_form, unpack, verb_form
from rpccluster.queues.redis.link import SCRIPT, Away, Link

__all__ = ["RedisEngine"]

_PATIENCE = 2.0  # seconds of silence after which Redis is away
_SHORT_PATIENCE = 0.5  # the same, while it is away
_RETRY = 0.5  # seconds between two looks for it
_MOST_VERBS = 500  # in one run of the script, during which Redis serves nobody else
_MOST_BYTES = 8 << 20

_Form = list[Any]


def _boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class RedisEngine:
    """Keeps the items of all queues in the Redis at ``address``.

    ``keeper`` is the name of this keeper: over its restarts the same, and no other's. ``durable`` is what the queues
    ask for; the server's settings decide.
    """

    may_be_silent = True

    def __init__(
        self,
        address: RedisAddress,
        keeper: str,
        *,
        durable: str = "always",
        session_grace: float = 5.0,
        password: str = "",
        clock: Callable[[], int] = _boot_ns,
        script: bytes = SCRIPT,
    ) -> None:
        self._address = address
        self._keeper = keeper
        self._durable = durable
        self._grace = max(1.0, session_grace)
        self._clock = clock  # nanoseconds; it cannot be set
        self._link = Link(address, password, keeper, script)
        self._epoch = self._number = 0  # of this start of the keeper, of its batches
        self._rules: dict[str, Rules] = {}
        self._default: Rules | None = None
        self._forms: dict[str, bytes] = {}
        self._is_told = False  # whether Redis has the rules, which also count at the end of a lease
        self._owed: list[_Form] = []  # what is to be done before all else: ends of sessions, gets to undo
        self._in_doubt: list[_Form] | None = None  # the batch whose answer did not come
        self._warnings: list[str] = []
        self._reason = ""  # why Redis is away
        self._is_away = False  # as the log has it
        self._retry_at = 0.0
        self._ready: set[str] = set()
        self._room: set[str] = set()

    def open(self) -> list[bytes]:
        """Begin, also while Redis is away. Returns the sessions that have leases from before.

        Raises `StartError` if what is found there cannot serve.
        """
        try:
            sessions = self._begin(time.monotonic() + _PATIENCE)
            self._ready, self._room = set(), set()  # nobody waits yet
            return sessions
        except Away as away:
            self._note_away(away)
            return []

    def warnings(self) -> list[str]:
        """Return what the operator should know, each once: what is asked for and the server does not do."""
        found, self._warnings = self._warnings, []
        return found

    def configure(self, rules: Mapping[str, Rules], default: Rules | None) -> None:
        """Take over what the sections say, from the next batch on."""
        self._rules, self._default = dict(rules), default
        self._is_told = False
        self._forms.clear()

    def start(self, batch: Sequence[Verb]) -> Callable[[], Outcome]:
        """Return what runs a batch, since Redis has to be waited for."""
        return lambda: self.run(batch)

    def run(self, batch: Sequence[Verb]) -> Outcome:
        """Run a batch. While Redis is away each verb is answered `QueueDown`. Raises `EngineFailed` if superseded."""
        answers: list[Answer] = [None] * len(batch)
        forms: list[tuple[int, _Form]] = []
        for at, verb in enumerate(batch):
            name = getattr(verb, "queue", None)
            if name is None or self._form_of(name):
                forms.append((at, verb_form(verb)))
            else:
                answers[at] = NoSuchQueue(name)
        wake_in = 0.0
        todo = list(_chunks(batch, forms))
        try:
            self._hear()
            for chunk in todo or [[]]:
                wake_in = self._run_chunk(batch, chunk, answers)
        except Away as away:
            self._note_away(away)
            wake_in = self._retry_at - time.monotonic()
            for at, form in forms:
                if answers[at] is None:
                    answers[at] = QueueDown(self._reason)
                    self._owed += [form] if isinstance(batch[at], verbs.EndSession) else []  # nobody repeats it
        ready, self._ready = frozenset(self._ready), set()
        room, self._room = frozenset(self._room), set()
        return Outcome(answers, ready, room, max(0.0, wake_in))

    def fileno(self) -> int | None:
        """Return the descriptor that is readable when another keeper wakes this one."""
        return self._link.fileno()

    def keep_up(self, *, is_idle: bool = True) -> bool:
        """Do nothing: Redis looks after itself."""
        return False

    def close(self) -> None:
        """Give the connections up. Sessions keep their items for ``session_grace``."""
        self._link.close()

    # -- batches

    def _run_chunk(self, batch: Sequence[Verb], chunk: list[tuple[int, _Form]], answers: list[Answer]) -> float:
        """Run some verbs of a batch at once. Returns in how many seconds the next run is due."""
        found, wake_in = self._run_forms([form for _, form in chunk])
        for (at, form), answer in zip(chunk, found):
            verb = batch[at]
            if isinstance(verb, GOES_ON):
                rest = piece_of(verb, form, answer)
                while rest is not None:
                    (piece,), wake_in = self._run_forms([rest])
                    answer[1] += piece[1]
                    rest = piece_of(verb, rest, piece)
            answers[at] = answer_of(verb, answer)
            if isinstance(verb, verbs.List):
                answers[at] = self._names(answers[at])
        return wake_in

    def _run_forms(self, forms: list[_Form]) -> tuple[list[list[Any]], float]:
        """Run the script, with verbs in its form. Returns their answers, and when the next run is due."""
        self._connect()
        owed = self._owed[:_MOST_VERBS]
        self._number += 1
        rules = {form[1]: self._form_of(form[1]) for form in forms if form[0] not in ("list", "end_session")}
        if not self._is_told:
            rules.update((name, self._form_of(name)) for name in self._rules)
        head = [self._keeper, self._epoch, self._number, round(self._grace * 1000), self._clock() // 1_000_000]
        reply = self._send(pack([*head, rules, [*owed, *forms]]), forms)
        if reply[0] == b"superseded":
            raise EngineFailed(f"another keeper has begun under the same name at {self._address}; this one ends")
        if reply[0] != b"done":
            raise Away(f"{self._address}: {_refusal(reply)}")
        _, answers, ready, room, milliseconds = reply
        self._ready.update(name.decode() for name in ready)
        self._room.update(name.decode() for name in room)
        self._owed, self._is_told = self._owed[len(owed) :], True
        if self._is_away:
            self._is_away = False
            self._warnings.append(f"Redis is there again: {self._address}")
        wake_in = milliseconds / 1000 + 0.001 if milliseconds else 0.0
        return answers[len(owed) :], 0.0 if self._owed else min(wake_in, self._grace / 3)

    def _send(self, batch: bytes, forms: list[_Form]) -> list[Any]:
        """Send a batch, and once more if no answer comes: it has a number, and is not run again."""
        until = time.monotonic() + _PATIENCE
        try:
            return list(unpack(self._link.run(batch, until)))
        except Away:
            if self._link.is_up:  # it has answered
                raise
            self._in_doubt = forms
            self._reconnect(time.monotonic() + _SHORT_PATIENCE)
            reply = self._link.run(batch, time.monotonic() + _SHORT_PATIENCE)
            self._in_doubt = None
            return list(unpack(reply))

    # -- coming and going

    def _connect(self) -> None:
        if self._link.is_up and self._epoch:
            return
        now = time.monotonic()
        if now < self._retry_at:
            raise Away(self._reason)
        until = now + (_SHORT_PATIENCE if self._reason else _PATIENCE)
        if self._epoch:
            self._reconnect(until)
            self._end_doubt(until)
        else:
            self._owed += [["end_session", session, False] for session in self._begin(until)]

    def _begin(self, until: float) -> list[bytes]:
        self._reconnect(until)
        found = server.look(self._link, until)
        if found.refusal:
            raise StartError(f"{self._address}: {found.refusal}")
        self._warnings += found.warnings(self._durable)
        reply = unpack(self._link.run(pack([self._keeper, 0, 0, 0, 0, {}, "begin"]), until))
        if reply[0] != b"begun":
            raise StartError(f"{self._address}: {_refusal(reply)}")
        _, self._epoch, sessions = reply
        return list(sessions)

    def _end_doubt(self, until: float) -> None:
        """Have the gets undone that a batch has run whose verbs were answered `QueueDown`. It may not run any more."""
        if self._in_doubt is None:
            return
        reply = unpack(self._link.run(pack([self._keeper, self._epoch, self._number, 0, 0, {}, "outcome"]), until))
        self._number += 1
        if reply[0] == b"done":
            answers = reply[1][len(reply[1]) - len(self._in_doubt) :]
            undone = [undo_form(form, answer) for form, answer in zip(self._in_doubt, answers)]
            self._owed += [form for form in undone if form is not None]
        self._in_doubt = None

    def _reconnect(self, until: float) -> None:
        self._link.connect(until)
        self._note_missed()

    def _hear(self) -> None:
        if not self._link.is_up:
            return
        try:
            for sign, name in self._link.wakes():
                (self._ready if sign == "r" else self._room).add(name)
        except Away:
            self._retry_at = 0.0  # the other connection ended with it: both are made anew at once

    def _note_missed(self) -> None:
        self._reason = ""
        self._look_at_all()

    def _look_at_all(self) -> None:
        """Have the calls tried that wait: what others have told did not come, or they are to hear that it is away."""
        self._ready.update(self._forms, self._rules)
        self._room.update(self._forms, self._rules)

    def _note_away(self, away: Away) -> None:
        now = time.monotonic()
        if now >= self._retry_at:
            self._retry_at = now + _RETRY
        self._reason = str(away)
        if not self._is_away:
            self._warnings.append(f"cannot reach Redis: {away}; until it is there every call is answered QueueDown")
        self._is_away = True
        self._look_at_all()

    # -- queues

    def _form_of(self, name: str) -> bytes | None:
        """Return the rules of a queue for the script; None where there is no such queue."""
        form = self._forms.get(name)
        if form is None:
            rules = self._rules.get(name) or self._default
            if rules is not None:
                form = self._forms[name] = rules_form(rules)
        return form

    def _names(self, kept: list[str]) -> list[str]:
        return sorted({*self._rules, *(kept if self._default is not None else ())})


def _chunks(batch: Sequence[Verb], forms: list[tuple[int, _Form]]) -> Iterator[list[tuple[int, _Form]]]:
    """Divide what is to be done: Redis serves nobody else while the script runs; what goes on ends its part."""
    chunk: list[tuple[int, _Form]] = []
    size = 0
    for at, form in forms:
        verb = batch[at]
        chunk.append((at, form))
        size += sum(map(len, verb.values)) if isinstance(verb, verbs.Put) else 0
        if len(chunk) >= _MOST_VERBS or size >= _MOST_BYTES or isinstance(verb, GOES_ON):
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _refusal(reply: list[Any]) -> str:
    if reply[0] == b"version":
        found, known = (version.decode() for version in reply[1:])
        return f"found queues of version {found}, expected {known}: this rpccluster is too old for them"
    return "a batch came late"
