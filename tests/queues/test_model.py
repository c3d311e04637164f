"""Random verbs by random clients with random deaths, held against the model, for the engine in a SQLite file."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rpccluster.queues.engine import (
    Ack,
    Dead,
    EndSession,
    Get,
    Nack,
    Pause,
    Peek,
    Purge,
    Put,
    Resume,
    Retry,
    Rules,
    Stats,
    Touch,
)
from rpccluster.queues.sqlite import SQLiteEngine
from rpccluster.queues.timescale import Kept, Timescale
from tests.queues.model import Model

QUEUE = "jobs"
RULES = Rules(lease=10.0, max_attempts=3, max_size=30, dedup_window=20.0)
SESSIONS = st.sampled_from([bytes([letter]) * 16 for letter in b"abcd"])
SECONDS = st.sampled_from([0.0, 0.0, 1.0, 5.0, 30.0])
MAYBE_SECONDS = st.none() | st.sampled_from([1.0, 5.0, 30.0])


class Machine(RuleBasedStateMachine):
    """One queue, four sessions that put and get, and a keeper that dies."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.model = Model(QUEUE, RULES, self.now)
        self.folder = tempfile.mkdtemp()
        self.seqs: dict[bytes, int] = {}
        self.batch: list[Any] = []
        self.open()

    def open(self) -> None:
        """Let a keeper begin."""

        def make_time(kept: Kept | None, boot: str) -> Timescale:
            return Timescale(kept, boot, lambda: self.now, lambda: 0.0)

        self.engine = SQLiteEngine(f"{self.folder}/queues.db", "os", make_time=make_time)
        self.engine.configure({QUEUE: RULES}, None)
        self.engine.open()

    def teardown(self) -> None:
        """End the keeper."""
        self.engine.close()
        shutil.rmtree(self.folder)

    def run(self, *verbs: Any) -> list[Any]:
        """Run a batch; the model's time goes on first."""
        answers = self.engine.run(verbs).answers
        self.model.now = self.now
        self.model.tick()
        return answers

    def pairs(self, data: st.DataObject, label: str) -> tuple[int, int]:
        """Draw an item, mostly one that is leased, and an attempt at it, mostly the present one."""
        leased = [item for item in self.model.items.values() if item.state == "leased"]
        known = leased or list(self.model.items.values())
        if not known:
            return 1, 1
        item = data.draw(st.sampled_from(known), label=label)
        return item.id, max(1, item.attempt - data.draw(st.sampled_from([0, 0, 0, 1])))

    @staticmethod
    def agree(answer: Any, expected: Any) -> None:
        """Hold an answer against the model's; of errors the type counts."""
        if isinstance(expected, Exception):
            assert type(answer) is type(expected), (answer, expected)
        else:
            assert answer == expected

    @rule(
        session=SESSIONS,
        sizes=st.lists(st.sampled_from([1, 100, 5000]), min_size=1, max_size=4),
        step=st.sampled_from([1, 1, 1, 1, 0, -1]),
        delay=SECONDS,
        priority=st.sampled_from([0, 0, 5, 9]),
        expires=MAYBE_SECONDS,
        dedup_id=st.sampled_from([None, None, "x", "y"]),
        group=st.sampled_from([None, None, "g", "h"]),
        token=st.sampled_from([None, None, 1, 2]),
    )
    def put(self, session: bytes, sizes: list[int], step: int, **options: Any) -> None:
        """Put, or repeat the last put of the session, or an older one."""
        seq = self.seqs[session] = max(1, self.seqs.get(session, 0) + step)
        verb = Put(QUEUE, [b"v" * size for size in sizes], session, seq, **options)
        [answer] = self.run(verb)
        self.model.put(verb, answer)

    @rule(session=SESSIONS, n=st.sampled_from([0, 1, 1, 3, 20]), seq=st.sampled_from([None, 1, 2]), data=st.data())
    def get(self, session: bytes, n: int, seq: int | None, data: st.DataObject) -> None:
        """Get, or repeat a get, with an ack along."""
        acks = [self.pairs(data, "ack")] if data.draw(st.booleans()) else []
        verb = Get(QUEUE, session, n, seq, acks)
        [answer] = self.run(verb)
        expected = self.model.get(verb)
        if isinstance(expected, list):
            answer, expected = sorted(answer), sorted(expected)
        self.agree(answer, expected)

    @rule(data=st.data(), token=st.sampled_from([None, None, 1, 2]))
    def ack(self, data: st.DataObject, token: int | None) -> None:
        """Ack."""
        verb = Ack(QUEUE, [self.pairs(data, "ack") for _ in range(data.draw(st.integers(1, 2)))], token)
        [answer] = self.run(verb)
        self.agree(answer, self.model.ack(verb))

    @rule(data=st.data(), delay=SECONDS, error=st.sampled_from(["", "bad"]), dead=st.sampled_from([False, False, True]))
    def nack(self, data: st.DataObject, delay: float, error: str, dead: bool) -> None:
        """Give back."""
        verb = Nack(QUEUE, *self.pairs(data, "nack"), delay, error, dead)
        [answer] = self.run(verb)
        self.agree(answer, self.model.nack(verb))

    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        """Let a lease begin anew."""
        verb = Touch(QUEUE, *self.pairs(data, "touch"))
        [answer] = self.run(verb)
        self.agree(answer, self.model.touch(verb))

    @rule(session=SESSIONS, counts=st.booleans())
    def end_session(self, session: bytes, counts: bool) -> None:
        """Let a consumer die."""
        verb = EndSession(session, counts)
        [answer] = self.run(verb)
        self.agree(answer, self.model.end_session(verb))

    @rule(session=SESSIONS, sizes=st.lists(st.just(3), min_size=1, max_size=3), group=st.sampled_from([None, "g"]))
    def put_get_and_ack(self, session: bytes, sizes: list[int], group: str | None) -> None:
        """Do all of it in one batch, in which the later verbs see what the earlier ones have done."""
        seq = self.seqs[session] = self.seqs.get(session, 0) + 1
        put = Put(QUEUE, [b"w" * size for size in sizes], session, seq, group=group)
        get = Get(QUEUE, session, 2)
        answers = self.run(put, get, Stats(QUEUE), Peek(QUEUE, 5))
        self.model.put(put, answers[0])
        self.agree(answers[1], self.model.get(get))
        self.agree(answers[2], self.model.stats(None))
        self.agree(answers[3], self.model.peek(Peek(QUEUE, 5)))

    @rule(session=SESSIONS)
    def get_all_and_die(self, session: bytes) -> None:
        """Take all, so that many attempts are used up."""
        get, end = Get(QUEUE, session, 50), EndSession(session)
        answers = self.run(get, end)
        self.agree(sorted(answers[0]), sorted(self.model.get(get)))
        self.agree(answers[1], self.model.end_session(end))

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """Retry one dead item, or all."""
        ids = [item.id for item in self.model.items.values() if item.state == "dead"]
        verb = Retry(QUEUE, data.draw(st.sampled_from([None, *ids, 1])))
        [answer] = self.run(verb)
        self.agree(answer, self.model.retry(verb))

    @rule()
    def purge(self) -> None:
        """Remove what nobody has; what is left of it on disk is removed by the upkeep."""
        [answer] = self.run(Purge(QUEUE))
        self.agree(answer, self.model.purge(Purge(QUEUE)))

    @rule(pause=st.booleans())
    def pause(self, pause: bool) -> None:
        """Pause, or resume."""
        assert self.run(Pause(QUEUE) if pause else Resume(QUEUE)) == [True]
        self.model.is_paused = pause

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0, 25.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.run()

    @rule()
    def keep_up(self) -> None:
        """Let the engine look after its file."""
        while self.engine.keep_up():
            pass

    @rule()
    def restart(self) -> None:
        """Let the keeper die, and another one begin."""
        self.engine.close()
        self.open()

    @initialize()
    def begin(self) -> None:
        """Begin with an empty queue."""
        self.looks_the_same()

    @invariant()
    def looks_the_same(self) -> None:
        """All that can be seen is as the model has it."""
        stats, peeked, dead = self.run(Stats(QUEUE), Peek(QUEUE, 100), Dead(QUEUE))
        self.agree(stats, self.model.stats(None))
        self.agree(peeked, self.model.peek(Peek(QUEUE, 100)))
        self.agree(dead, self.model.dead(Dead(QUEUE)))


Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestModel = Machine.TestCase
