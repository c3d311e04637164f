"""The states of a worker: every event in every state."""

from __future__ import annotations

import itertools

import pytest

from rpccluster.errors import IllegalTransition
from rpccluster.worker.lifecycle import Event, State, next_state

ALLOWED = {
    (State.BOOTING, Event.BOOTED): State.WAITING,
    (State.WAITING, Event.MAY_ACCEPT): State.SERVING,
    (State.WAITING, Event.MUST_RETIRE): State.RETIRING,
    (State.SERVING, Event.MUST_RETIRE): State.RETIRING,
    (State.RETIRING, Event.MUST_RETIRE): State.RETIRING,
    (State.RETIRING, Event.FINISHED): State.GONE,
    (State.GONE, Event.MUST_RETIRE): State.GONE,
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_event_in_every_state(state: State, event: Event) -> None:
    """The allowed ones lead where they should, the others raise."""
    if (state, event) in ALLOWED:
        assert next_state(state, event) is ALLOWED[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"found '{event.value}' in state '{state.value}'"):
            next_state(state, event)


def test_a_worker_comes_to_its_end_only_by_retiring() -> None:
    """And never back from there."""
    assert {state for (state, _), to in ALLOWED.items() if to is State.GONE} == {State.RETIRING, State.GONE}
    assert {to for (state, _), to in ALLOWED.items() if state is State.RETIRING} == {State.RETIRING, State.GONE}
    assert {to for (state, _), to in ALLOWED.items() if state is State.GONE} == {State.GONE}
