"""The limit on log lines: one of a kind in an interval, none forgotten. With a made-up clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rpccluster.rate_limit import INTERVAL_SECONDS, LogLimiter, and_more


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_line_of_a_kind_is_due_at_once() -> None:
    """Whatever the clock says."""
    for now in (0.0, 0.5, 1e9):
        clock = Clock()
        clock.now = now
        assert LogLimiter(10, clock=clock).should_log("idle_timeout") == (True, 0)


def test_one_line_an_interval_tells_of_those_between() -> None:
    """The second is due exactly when the interval is over."""
    clock = Clock()
    limiter = LogLimiter(10, clock=clock)
    seen = []
    for second in (0, 1, 9.9, 10, 10.1, 25, 60):
        clock.now = 1000.0 + second
        seen.append(limiter.should_log("max_depth"))
    assert seen == [(True, 0), (False, 0), (False, 0), (True, 2), (False, 0), (True, 1), (True, 0)]


def test_kinds_do_not_disturb_each_other() -> None:
    """A flood of one hides no line of another."""
    limiter = LogLimiter(10, clock=Clock())
    assert [limiter.should_log("a")[0] for _ in range(100)] == [True] + [False] * 99
    assert limiter.should_log("b") == (True, 0)


def test_the_clock_is_the_machines_unless_given() -> None:
    """And the interval the documented one."""
    limiter = LogLimiter()
    assert limiter.should_log("a") == (True, 0)
    assert limiter.should_log("a") == (False, 0)
    assert INTERVAL_SECONDS == 10


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from("abc")), max_size=60))
def test_every_event_is_logged_or_counted(events: list[tuple[float, str]]) -> None:
    """Lines and what they stand for add up; two lines of one kind are an interval apart."""
    clock = Clock()
    limiter = LogLimiter(10, clock=clock)
    told = dict.fromkeys("abc", 0)
    since = dict.fromkeys("abc", 0)
    last: dict[str, float] = {}
    for pause, kind in events:
        clock.now += pause
        is_due, held_back = limiter.should_log(kind)
        since[kind] += 1
        if is_due:
            assert held_back + 1 == since[kind]
            assert clock.now - last.get(kind, -1e9) >= 10
            last[kind] = clock.now
            told[kind] += since[kind]
            since[kind] = 0
    assert sum(told.values()) + sum(since.values()) == len(events)


def test_the_end_of_a_line_tells_how_many_more() -> None:
    """Nothing when there are none."""
    assert and_more(0) == ""
    assert and_more(17) == " (and 17 more like this since the last such line)"
