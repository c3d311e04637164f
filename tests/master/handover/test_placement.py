"""Who gives how many, who gets which, and when to look again: every rule, on made-up workers and a made-up clock."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rpccluster.ipc.messages import Release
from rpccluster.master.handover.placement import (
    ALONE_SECONDS,
    GRANT_BYTES,
    LOOK_SECONDS,
    PATIENCE_SECONDS,
    SILENT_SECONDS,
    WINDOW,
    WINDOW_BYTES,
    Ask,
    Decision,
    Even,
    PassOn,
    Place,
    Situation,
    TakeBack,
    decide,
)
from rpccluster.master.handover.transit import REST_SECONDS, Grants

from .made_up import MadeUpWorker, booting, ready, retiring, transit

NOW = 100.0
LOOK = NOW + LOOK_SECONDS


def decided(*workers: MadeUpWorker, **values: Any) -> Decision:
    """What is decided about these workers."""
    return decide(Situation(workers=workers, **values), NOW)


def granted(*workers: MadeUpWorker, number: int = 10, number_bytes: int = GRANT_BYTES) -> Grants:
    """Each was asked for so many, and has not answered."""
    grants = Grants()
    for worker in workers:
        grants.grant(worker, Release(number, number_bytes))
    return grants


# -- nothing to do


@pytest.mark.parametrize("workers", [[], [ready(5), ready(900)], [booting(), ready()]], ids=["none", "uneven", "boots"])
def test_at_rest_it_sleeps(workers: list[MadeUpWorker]) -> None:
    """Only an event can change anything."""
    assert decided(*workers) == ([], math.inf)


def test_it_may_be_asked_again() -> None:
    """The same question has the same answer: nothing is remembered, and nothing was changed."""
    giver, adopter, held = retiring(5), ready(), transit()
    situation = Situation(workers=[giver, adopter], transits=[held])
    assert decide(situation, NOW) == decide(situation, NOW)
    assert (held.adopter, adopter.given) == (None, 0)


# -- who gets which


def test_the_emptiest_gets_it() -> None:
    """Those that are on their way to it are counted."""
    on_their_way, emptiest = ready(0, given=5), ready(3)
    held = transit()
    assert decided(on_their_way, emptiest, transits=[held]).actions == [Place(held, emptiest)]


def test_what_is_planned_is_counted() -> None:
    """Several in one decision are spread as one after another would be."""
    one, other = ready(2), ready(0)
    held = [transit() for _ in range(4)]
    actions = decided(one, other, transits=held).actions
    assert [action.adopter for action in actions if isinstance(action, Place)] == [other, other, one, other]
    assert [action.transit for action in actions if isinstance(action, Place)] == held


def test_nobody_is_sent_more_than_it_has_room_for() -> None:
    """The others wait, and are looked at again soon: a connection that ends wakes nobody."""
    full = ready(8, limit=10)
    held = [transit() for _ in range(3)]
    decision = decided(full, transits=held)
    assert decision.actions == [Place(held[0], full), Place(held[1], full)]
    assert decision.wake_at == LOOK


@pytest.mark.parametrize(
    "worker",
    [
        booting(),
        ready(is_killed=True),
        ready(is_questioned=True),
        ready(is_overwhelmed=True),
        ready(silent_seconds=SILENT_SECONDS),
        ready(5, limit=5),
        ready(7, limit=5),
        retiring(is_killed=True),
        retiring(silent_seconds=SILENT_SECONDS),
        retiring(5, limit=5),
    ],
    ids=[
        *("boots", "killed", "asked where it hangs", "calls have all its greenlets", "silent", "full", "over full"),
        *("retiring and killed", "retiring and silent", "retiring and full"),
    ],
)
def test_who_cannot_adopt_is_not_sent_anything(worker: MadeUpWorker) -> None:
    """The connection waits."""
    assert decided(worker, transits=[transit()]) == ([], LOOK)
    other, held = ready(900), transit()
    assert Place(held, other) in decided(worker, other, transits=[held]).actions


def test_one_that_retires_is_the_last_resort() -> None:
    """When nobody else has room; it serves on."""
    leaves, full, held = retiring(), ready(5, limit=5), transit()
    assert decided(leaves, full, transits=[held]).actions == [Place(held, leaves)]
    full.limit = 6
    assert decided(leaves, full, transits=[held]).actions == [Place(held, full)]


def test_it_is_placed_when_all_stops_too() -> None:
    """Its calls are to be answered; but nobody is asked for more."""
    leaves, held = retiring(5), transit()
    assert decided(leaves, transits=[held], may_move=False).actions == [Place(held, leaves)]


def test_who_is_left_alone_is_asked_when_its_time_is_over() -> None:
    """Not before; and that moment is not slept through."""
    refused, held = ready(), transit()
    decision = decided(refused, transits=[held], left_alone={refused: NOW + 0.1})
    assert decision == ([], NOW + 0.1)
    assert decided(refused, transits=[held], left_alone={refused: NOW}).actions == [Place(held, refused)]


def test_what_was_sent_waits_for_the_adopter() -> None:
    """For so long and no longer."""
    adopter = ready()
    held = transit()
    assert decided(adopter, transits=[held]) == ([Place(held, adopter)], NOW + PATIENCE_SECONDS)
    sent = transit(adopter, sent_at=NOW - 0.4)
    assert decided(adopter, transits=[sent]) == ([], NOW - 0.4 + PATIENCE_SECONDS)


# -- when to take back


def test_a_late_adopter_is_taken_back_from_once() -> None:
    """Whatever it has not read; and that is placed at once."""
    late, in_time = ready(), ready()
    sent = [transit(late, NOW - PATIENCE_SECONDS), transit(in_time, NOW - 0.5), transit(late, NOW - 5)]
    assert decided(late, in_time, transits=sent) == ([TakeBack(late)], NOW)


def test_nothing_is_sent_to_a_late_adopter() -> None:
    """Not in the same decision: it would be read back with the rest, or not be read."""
    late, other, held = ready(), ready(500), transit()
    sent = transit(late, NOW - PATIENCE_SECONDS)
    assert decided(late, other, transits=[held, sent]).actions == [TakeBack(late), Place(held, other)]
    assert decided(late, transits=[held, sent]).actions == [TakeBack(late)]


def test_what_was_read_is_the_adopters() -> None:
    """It is not taken back however long that takes: only a word or an end can change that."""
    busy = ready()
    sent = transit(busy, NOW - 500)
    sent.is_read = True
    assert decided(busy, transits=[sent]) == ([], math.inf)


# -- who gives how many


def test_a_retiring_worker_gives_what_others_have_room_for() -> None:
    """It keeps the rest; a connection of others that ends makes room, and wakes nobody."""
    leaves, one, other = retiring(9), ready(3, limit=5), ready(0, limit=4)
    assert decided(leaves, one, other) == ([Ask(leaves, Release(6, GRANT_BYTES))], LOOK)
    assert decided(retiring(9), ready(5, limit=5)) == ([], LOOK)


def test_the_room_is_shared() -> None:
    """Over all that retire, with what is granted, what nobody has yet, and what is on its way."""
    one, other, third = retiring(4), retiring(9), retiring(9)
    adopter = ready(0, limit=12)
    held, sent = transit(), transit(adopter, NOW)
    grants = granted(third, number=3)
    actions = decided(one, other, third, adopter, transits=[held, sent], grants=grants).actions
    assert actions == [
        Place(held, adopter),
        Ask(one, Release(4, GRANT_BYTES)),
        Ask(other, Release(3, GRANT_BYTES)),
    ]


def test_those_that_nobody_has_yet_take_room_too() -> None:
    """The adopter may be left alone only for a moment."""
    leaves, refused = retiring(9), ready(0, limit=10)
    assert decided(leaves, refused, transits=[transit()], left_alone={refused: NOW + 1}).actions[1:] == []


def test_no_more_are_under_way_than_the_window() -> None:
    """Granted and in transit together."""
    leaves, granted_to, adopter = retiring(1000), retiring(1000), ready(limit=5000)
    transits = [transit(adopter, NOW) for _ in range(20)]
    actions = decided(leaves, granted_to, adopter, transits=transits, grants=granted(granted_to, number=30)).actions
    assert actions == [Ask(leaves, Release(WINDOW - 50, GRANT_BYTES))]


@pytest.mark.parametrize(("under_way", "may_go"), [(0, GRANT_BYTES), (WINDOW_BYTES - 5, 5), (WINDOW_BYTES, 0)])
def test_no_more_bytes_are_under_way_than_the_kernel_should_hold(under_way: int, may_go: int) -> None:
    """Those that are granted counted."""
    leaves, granted_to, adopter = retiring(5), retiring(5), ready()
    sent = transit(adopter, NOW, size=under_way // 2)
    grants = granted(granted_to, number_bytes=under_way - under_way // 2)
    actions = decided(leaves, granted_to, adopter, transits=[sent], grants=grants).actions
    assert actions == ([Ask(leaves, Release(5, may_go))] if may_go else [])


def test_a_donor_that_does_not_run_holds_up_nobody() -> None:
    """What it was granted, it does not give now."""
    leaves, stopped, adopter = retiring(5), retiring(5, silent_seconds=SILENT_SECONDS), ready(limit=5)
    actions = decided(leaves, stopped, adopter, grants=granted(stopped, number=5)).actions
    assert actions == [Ask(leaves, Release(5, GRANT_BYTES))]


def test_a_donor_is_asked_once_at_a_time() -> None:
    """Until it has said that this was all; if it had nothing to give, it rests for a moment."""
    leaves, adopter = retiring(5), ready()
    grants = granted(leaves, number=2)
    assert decided(leaves, adopter, grants=grants).actions == []
    grants.note_released(leaves, 0, NOW - 0.05)
    decision = decided(leaves, adopter, grants=grants)
    assert decision == ([], NOW - 0.05 + REST_SECONDS)
    assert [
        type(action) for action in decide(Situation([leaves, adopter], grants=grants), decision.wake_at).actions
    ] == [Ask]
    grants.note_released(leaves, 2, NOW)
    assert len(decided(leaves, adopter, grants=grants).actions) == 1


@pytest.mark.parametrize(
    "leaves", [retiring(5, is_killed=True), booting(), ready(5)], ids=["killed", "boots", "serves"]
)
def test_nobody_else_is_asked(leaves: MadeUpWorker) -> None:
    """Unless counts are to be evened out."""
    assert decided(leaves, ready()) == ([], math.inf)


def test_an_empty_one_that_retires_may_still_accept_one() -> None:
    """Before it hears that it is to retire: it is looked at again, but not asked for what it has not."""
    assert decided(retiring(0), ready()) == ([], LOOK)


def test_nobody_gives_when_all_stops() -> None:
    """Connections end where they are."""
    assert decided(retiring(5), ready(), may_move=False) == ([], math.inf)


# -- evening out


def test_nothing_is_evened_out_where_nothing_moves() -> None:
    """In a drained cluster: whoever has asked for it is answered at once."""
    assert decided(is_uneven=True, may_move=False) == ([Even()], math.inf)
    assert decided(ready(5), ready(900), is_uneven=True, may_move=False) == ([Even()], math.inf)


@pytest.mark.parametrize("counts", [[], [9], [5, 5], [5, 6], [100, 110], [0, 1, 1], [19, 20, 21]], ids=str)
def test_what_is_even_enough_stays(counts: list[int]) -> None:
    """One more or fewer, or a tenth of the mean; then there is nothing to wait for."""
    assert decided(*map(ready, counts), is_uneven=True) == ([Even()], math.inf)


@pytest.mark.parametrize(("counts", "asked", "number"), [([10, 0], 0, 5), ([0, 9], 1, 4), ([10, 2, 3], 0, 5)], ids=str)
def test_the_fullest_gives_what_it_has_above_the_mean(counts: list[int], asked: int, number: int) -> None:
    """Rounded up, so that it is not asked for one too many."""
    workers = [*map(ready, counts)]
    assert decided(*workers, is_uneven=True) == ([Ask(workers[asked], Release(number, GRANT_BYTES))], LOOK)


def test_it_waits_for_what_changes_the_counts() -> None:
    """A boot, a connection in transit, a grant; and looks again, for a donor may fall silent."""
    full, empty = ready(10), ready(0)
    assert decided(full, empty, booting(), is_uneven=True) == ([], math.inf)
    assert decided(full, empty, transits=[transit(empty, NOW)], is_uneven=True) == ([], LOOK)
    assert decided(full, empty, grants=granted(full), is_uneven=True) == ([], LOOK)


def test_one_that_retires_goes_first() -> None:
    """Its connections change the counts."""
    full, empty, leaves = ready(10), ready(0), retiring(3)
    assert decided(full, empty, leaves, is_uneven=True).actions == [Ask(leaves, Release(3, GRANT_BYTES))]


def test_who_is_left_alone_is_not_compared() -> None:
    """Nothing could be sent to it."""
    full, refused = ready(10), ready(0)
    assert decided(full, refused, left_alone={refused: NOW + ALONE_SECONDS}, is_uneven=True).actions == [Even()]


# -- an upgrade


def test_a_new_master_gets_all() -> None:
    """Whatever room there is here; and no more is asked for than the window."""
    leaves, held = retiring(1000), transit()
    assert decided(leaves, transits=[held], new_master_at=0.0).actions == [
        PassOn(held),
        Ask(leaves, Release(WINDOW - 1, GRANT_BYTES)),
    ]


def test_a_new_master_that_refused_is_left_alone() -> None:
    """What it refused is served by those who retire; nobody is asked for more."""
    leaves, held = retiring(5), transit()
    decision = decided(leaves, transits=[held], new_master_at=NOW + 0.2)
    assert decision == ([Place(held, leaves)], LOOK)
    nobody = decided(retiring(5, is_killed=True), transits=[held], new_master_at=NOW + 0.2)
    assert nobody == ([], NOW + 0.2)
    assert PassOn(held) in decided(leaves, transits=[held], new_master_at=NOW).actions


def test_what_the_new_master_has_waits_for_its_word() -> None:
    """Or its end."""
    given = transit()
    given.is_with_new_master = True
    assert decided(transits=[given], new_master_at=0.0) == ([], math.inf)
