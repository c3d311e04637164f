"""Every rule of the policy, on made-up workers and times."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rpccluster.ipc.scoreboard import Cell
from rpccluster.master.children.child import HUNG, LATE, MOVING_SECONDS, Overdue
from rpccluster.master.children.group import Overlap
from rpccluster.master.children.policy import (
    ANSWER_SECONDS,
    BEAT_SECONDS,
    LATE_SECONDS,
    Admit,
    Dismiss,
    Kill,
    Question,
    Retire,
    Spawn,
    decide,
)
from rpccluster.master.kinds.rpc import RPCWorker
from rpccluster.master.phases import Phase

from ..made_up import DAILY, booting, group, ready, retiring

NOW = 100.0


def decided(*workers: RPCWorker, now: float = NOW, **values: Any) -> list[Any]:
    return decide(group(*workers, **values), now).actions


# -- the start


def test_the_first_ones_are_started_once() -> None:
    """One for each slot wanted; what becomes of them is replaced only when the start is over."""
    assert decided(phase=Phase.STARTING, number_workers=2, has_begun=False) == [Spawn(0, 1), Spawn(1, 1)]
    assert decided(booting(1), phase=Phase.STARTING, number_workers=2) == []
    assert decided(phase=Phase.JOINING, number_workers=2) == []


def test_a_new_master_changes_nothing_before_it_may() -> None:
    """It waits for the old one's word: neither recycles nor fills a slot."""
    overdue = ready(0, overdue=Overdue(0.0, "x"))
    assert decided(overdue, phase=Phase.STANDBY, number_workers=3) == []


# -- vacancies


def test_a_full_cluster_needs_nothing() -> None:
    """No action at all."""
    assert decided(ready(0), ready(1)) == []
    assert decided(ready(0), booting(1)) == []


def test_vacant_slots_are_filled() -> None:
    """Each, at once, with the present generation."""
    assert decided(ready(1), number_workers=4, generation=7) == [Spawn(0, 7), Spawn(2, 7), Spawn(3, 7)]


@pytest.mark.parametrize(
    "worker",
    [
        retiring(0),
        ready(0, kill_reason="why"),
        booting(0, kill_reason="why"),
        ready(0, questioned_at=NOW),
    ],
    ids=["retiring", "killed", "killed while booting", "hung"],
)
def test_a_worker_on_its_way_out_fills_no_slot(worker: RPCWorker) -> None:
    """Its successor is not kept waiting for its end."""
    assert decided(worker, number_workers=1) == [Spawn(0, 1)]


def test_restarts_back_off() -> None:
    """Nothing is started before the time that they have earned."""
    assert decided(number_workers=1, spawn_at=NOW + 0.1) == []
    assert decided(number_workers=1, spawn_at=NOW) == [Spawn(0, 1)]


def test_slots_back_off_each_for_itself() -> None:
    """The others are filled meanwhile, and recycled."""
    waiting = {0: NOW + 0.1}
    assert decided(number_workers=2, start_at=waiting) == [Spawn(1, 1)]
    assert decided(number_workers=2, start_at={0: NOW}) == [Spawn(0, 1), Spawn(1, 1)]
    due = [ready(slot, overdue=Overdue(float(slot), "x")) for slot in (0, 1)]
    assert decided(*due, start_at=waiting) == [Spawn(1, 1)]
    assert decided(due[1], number_workers=2, start_at=waiting) == [Spawn(1, 1)]


def test_backing_off_does_not_keep_workers_from_leaving() -> None:
    """Only starting waits."""
    worker = ready(1)
    assert decided(ready(0), worker, number_workers=1, spawn_at=NOW + 9) == [Retire(worker, "scaled down")]


# -- scaling down


def test_surplus_workers_leave() -> None:
    """Those of the highest slots: ready ones finish first, booting ones are ended."""
    two, three, four = ready(2), booting(3), retiring(4)
    workers = (ready(0), ready(1), two, three, four)
    assert decided(*workers, number_workers=2) == [Retire(two, "scaled down"), Kill(three, "scaled down")]


def test_a_surplus_worker_is_ended_once() -> None:
    """What was asked for shows in the handle before the next call."""
    killed = booting(1, kill_reason="scaled down")
    assert decided(ready(0), killed, retiring(2), number_workers=1) == []


def test_a_scale_up_does_not_wait_for_those_that_leave() -> None:
    """Their slots are vacant."""
    assert decided(ready(0), retiring(1), retiring(2), number_workers=3) == [Spawn(1, 1), Spawn(2, 1)]


# -- recycling


def test_an_overdue_worker_gets_a_successor_before_it_goes() -> None:
    """First the successor is started, then awaited, then the old one is told."""
    old = ready(0, overdue=Overdue(1.0, "max_requests"))
    assert decided(old) == [Spawn(0, 1)]
    successor = booting(0, booted_at=NOW)
    assert decided(old, successor) == []
    assert decided(old, ready(0, booted_at=NOW)) == [Retire(old, "max_requests")]


def test_one_is_recycled_at_a_time_the_longest_overdue_first() -> None:
    """Whatever its slot; the lowest slot if two have waited as long."""
    workers = [ready(slot, overdue=Overdue(since, "max_requests")) for slot, since in enumerate([5.0, 3.0, 4.0, 3.0])]
    assert decided(*workers) == [Spawn(1, 1)]
    assert decided(*workers, booting(1, booted_at=NOW)) == []


def test_the_next_recycling_does_not_wait_for_the_last_leaver() -> None:
    """Long calls of one that retires do not keep the others from their turn."""
    assert decided(retiring(0), ready(0, booted_at=50.0), ready(1, overdue=Overdue(1.0, "x"))) == [Spawn(1, 1)]


def test_leavers_do_not_pile_up() -> None:
    """At most as many as are wanted: two generations side by side, never three."""
    leaving = [retiring(0), retiring(1)]
    present = [ready(0, booted_at=50.0, overdue=Overdue(51.0, "x")), ready(1, booted_at=50.0)]
    assert decided(*leaving, *present) == []
    assert decided(leaving[0], *present) == [Spawn(0, 1)]


def test_a_vacancy_is_more_urgent_than_a_recycling() -> None:
    """The overdue one serves still."""
    assert decided(ready(0, overdue=Overdue(1.0, "x")), number_workers=2) == [Spawn(1, 1)]
    assert decided(ready(0, overdue=Overdue(1.0, "x")), booting(1)) == []


def test_a_worker_whose_successor_has_just_come_is_no_longer_overdue() -> None:
    """The decision that retires it does not start another successor for it, nor the next one after it."""
    old, other = ready(0, overdue=Overdue(1.0, "x")), ready(1, overdue=Overdue(2.0, "y"))
    successor = ready(0, booted_at=99.0)
    assert decided(old, successor, other) == [Retire(old, "x")]
    assert decided(retiring(0), successor, other) == [Spawn(1, 1)]


def test_nobody_boots_for_a_recycling_while_connections_move() -> None:
    """A boot takes CPU from the calls on them. One that cannot give its connections away does not hold up the rest."""
    leaves, other = retiring(0, retired_at=NOW - 0.1), ready(1, overdue=Overdue(2.0, "y"))
    leaves.row[Cell.CONNECTIONS] = 3
    assert decided(leaves, ready(0, booted_at=99.0), other) == []
    assert decided(leaves, other, number_workers=2) == [Spawn(0, 1)]  # a slot that nobody has is filled at once
    leaves.retired_at = NOW - MOVING_SECONDS
    assert decided(leaves, ready(0, booted_at=99.0), other) == [Spawn(1, 1)]


def test_nobody_boots_for_a_recycling_while_connections_are_on_their_way() -> None:
    """Their donor may have none left, and have ended: the fork would keep the master from passing them on."""
    other = ready(1, overdue=Overdue(2.0, "y"))
    assert decided(ready(0), other, moves_until=NOW + 0.1) == []
    assert decided(other, number_workers=2, moves_until=NOW + 0.1) == [Spawn(0, 1)]
    assert wakes_at(ready(0), other, moves_until=NOW + 0.1) == NOW + 0.1
    assert decided(ready(0), other, moves_until=NOW) == [Spawn(1, 1)]


def test_a_booting_worker_is_never_overdue() -> None:
    """Nor one that retires, nor one that was killed."""
    due = Overdue(1.0, "x")
    assert decided(booting(0, overdue=due)) == []
    assert decided(retiring(0, overdue=due), ready(0, booted_at=9.0)) == []
    assert decided(ready(0, overdue=due, kill_reason="y"), booting(0)) == []


def test_max_lifetime_counts_from_readiness() -> None:
    """And gives its own name as the reason."""
    worker = ready(0, ready_at=10.0)
    assert decided(worker, max_lifetime=90.5) == []
    assert decided(worker, max_lifetime=90.0) == [Spawn(0, 1)]
    assert decided(worker, ready(0, booted_at=99.0), max_lifetime=90.0)[0] == Retire(worker, "max_lifetime")
    assert decided(worker, max_lifetime=0) == []


def test_the_earliest_reason_counts() -> None:
    """Of several, for the order and for the name."""
    both = ready(0, ready_at=10.0, overdue=Overdue(60.0, "max_requests"))
    other = ready(1, ready_at=80.0, overdue=Overdue(50.0, "max_requests"))
    assert decided(both, other, max_lifetime=30.0) == [Spawn(0, 1)]
    assert Retire(both, "max_lifetime") in decided(both, ready(0, booted_at=99.0), other, max_lifetime=30.0)


def test_a_recycling_that_backs_off_waits() -> None:
    """A successor that dies in a loop is not started again and again; the old one serves."""
    assert decided(ready(0, overdue=Overdue(1.0, "x")), spawn_at=NOW + 1) == []


# -- reload


def test_a_reload_proves_itself_in_one_worker() -> None:
    """It is started beside the others, in the first slot, with the staged generation; then everything waits for it."""
    workers = [ready(0), ready(1)]
    assert decided(*workers, staged_generation=2) == [Spawn(0, 2)]
    assert decided(*workers, booting(0, 2), staged_generation=2) == []


def test_a_reload_goes_before_recycling() -> None:
    """What was overdue is replaced by the new generation."""
    assert decided(ready(0), ready(1, overdue=Overdue(1.0, "x")), staged_generation=2) == [Spawn(0, 2)]


def test_a_reload_waits_for_nobody() -> None:
    """Neither for one that boots nor for a vacant slot: what cannot be filled may be what it is to mend."""
    assert decided(ready(0), booting(1), staged_generation=2) == [Spawn(0, 2)]
    assert decided(ready(1), number_workers=2, staged_generation=2) == [Spawn(0, 2), Spawn(0, 1)]
    assert decided(ready(0), staged_generation=2, spawn_at=NOW + 1) == []


def test_nothing_is_recycled_while_a_reload_is_tried() -> None:
    """The first worker of the new generation decides with which one."""
    due = ready(1, overdue=Overdue(1.0, "x"))
    assert decided(ready(0), due, booting(0, 2), staged_generation=2) == []


def test_an_overtaken_candidate_is_not_waited_for() -> None:
    """Another HUP came: its own candidate starts at once."""
    overtaken = booting(0, 2, kill_reason="overtaken by another reload")
    assert decided(ready(0), overtaken, staged_generation=3) == [Spawn(0, 3)]


@pytest.mark.parametrize(
    "candidate",
    [booting(0, 2, questioned_at=NOW), booting(0, 2, questioned_at=NOW, kill_reason=HUNG)],
    ids=["questioned", "killed"],
)
def test_a_candidate_that_hangs_fails_and_is_not_tried_again(candidate: RPCWorker) -> None:
    """Until it is buried, which ends the reload, no second one is started in its place."""
    assert decided(ready(0), candidate, staged_generation=2) == []


def test_a_successor_that_hangs_is_not_tried_again_either() -> None:
    """Its burial ends the replacing."""
    old, hung = ready(0), booting(0, 2, questioned_at=NOW, kill_reason=HUNG)
    assert decided(old, hung, generation=2, is_rolling=True) == []


def test_after_a_reload_the_older_are_replaced_one_by_one() -> None:
    """Each after its successor is ready; the reason is said."""
    new, zero, one = ready(0, 2, booted_at=90.0), ready(0), ready(1)
    rolling: dict[str, Any] = {"generation": 2, "is_rolling": True, "rolls_since": 91.0}
    assert decided(zero, one, new, **rolling) == [Retire(zero, "reload")]
    assert decided(one, new, **rolling) == [Spawn(1, 2)]
    assert decided(one, new, booting(1, 2), **rolling) == []
    assert decided(one, new, ready(1, 2, booted_at=95.0), **rolling) == [Retire(one, "reload")]


def test_a_reload_that_was_given_up_leaves_the_others() -> None:
    """Older generations are no reason by themselves."""
    assert decided(ready(0, 2), ready(1, 1), generation=2, is_rolling=False) == []


def test_a_booting_worker_of_an_older_generation_is_not_waited_for() -> None:
    """A reload that replaces it would do so as soon as it is ready; one of the present generation boots on."""
    old, new = booting(1, 1), booting(0, 2)
    assert decided(old, new, generation=2, is_rolling=True) == [Kill(old, "reload")]
    assert decided(old, new, generation=2, is_rolling=False) == []


def test_a_newer_generation_wins_even_if_it_booted_first() -> None:
    """The clock decides only within a generation."""
    new, old = ready(0, 2, booted_at=10.0), ready(0, 1, booted_at=20.0)
    assert decided(old, new, generation=2) == [Retire(old, "replaced")]


# -- silence


def test_a_silent_worker_is_asked_then_killed() -> None:
    """Asked where it hangs after timeout and a beat; killed when it had time to dump its stack."""
    worker = ready(0, silent_since=NOW - 3)
    assert decided(worker, timeout=3, now=NOW + BEAT_SECONDS - 0.01) == []
    assert decided(worker, timeout=3, now=NOW + BEAT_SECONDS) == [Question(worker)]
    worker.questioned_at = NOW
    assert decided(worker, timeout=3) == [Spawn(0, 1)]
    assert decided(worker, booting(0), timeout=3, now=NOW + ANSWER_SECONDS) == [Kill(worker, HUNG)]


def test_a_hung_worker_is_killed_once() -> None:
    """And not asked again."""
    worker = ready(0, silent_since=1.0, questioned_at=1.0, kill_reason=HUNG)
    assert decided(worker, booting(0), timeout=3) == []


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("make", [booting, ready, retiring])
def test_silence_counts_in_every_phase_and_state(phase: Phase, make: Any) -> None:
    """A worker that hangs in its boot or while it retires is killed, too."""
    worker = make(0, silent_since=1.0)
    assert Question(worker) in decided(worker, timeout=30, phase=phase)


def test_timeout_0_means_never() -> None:
    """However long the silence."""
    assert decided(ready(0, silent_since=0.0), timeout=0) == []


def test_a_worker_that_retires_too_long_is_killed() -> None:
    """At its deadline, once."""
    worker = retiring(0, kill_at=NOW)
    assert decided(worker, ready(0), now=NOW - 0.1) == []
    assert decided(worker, ready(0)) == [Kill(worker, "it did not finish in graceful_timeout")]
    worker.kill_reason = "late"
    assert decided(worker, ready(0)) == []


# -- the end


@pytest.mark.parametrize("phase", [Phase.DRAINED, Phase.LEAVING, Phase.STOPPING])
def test_leaving_workers_finish_what_they_have(phase: Phase) -> None:
    """Ready ones retire, booting ones are ended, nothing is started, and each is told once."""
    one, two = ready(0), booting(1)
    expected = [Retire(one, phase.value), Kill(two, phase.value)]
    assert decided(one, two, phase=phase, number_workers=4) == expected
    told = [retiring(0, retire_reason=phase.value), booting(1, kill_reason=phase.value), ready(2, kill_reason="x")]
    assert decided(*told, phase=phase, number_workers=4) == []


def test_a_stop_overtakes_a_recycling() -> None:
    """A worker that retires already learns that connections end: nobody would take them, and it would be killed."""
    worker = retiring(0, retire_reason="max_requests")
    for phase in (Phase.STOPPING, Phase.DRAINED):
        assert decided(worker, phase=phase) == [Retire(worker, phase.value)]
    assert decided(worker, phase=Phase.LEAVING) == []
    assert decided(retiring(0, retire_reason="max_requests", kill_reason="late"), phase=Phase.STOPPING) == []


@pytest.mark.parametrize("phase", [Phase.STOPPING, Phase.DRAINED, Phase.RUNNING])
def test_who_stays_for_connections_ends_when_none_can_come(phase: Phase) -> None:
    """Whatever the cluster does by then: a drained one may be wanted again."""
    worker = retiring(0, retire_reason=phase.value, stays=True)
    assert decided(worker, phase=phase, number_workers=0, is_awaited=True) == []
    assert decided(worker, phase=phase, number_workers=0) == [Dismiss(worker)]
    worker.stays = False
    assert decided(worker, phase=phase, number_workers=0) == []


def test_a_drained_cluster_stays() -> None:
    """WINCH keeps the master."""
    assert decided(phase=Phase.DRAINED, number_workers=2) == []


def test_a_quick_stop_kills_all() -> None:
    """Whatever they do; each once."""
    workers = [booting(0), ready(1), retiring(2)]
    assert decided(*workers, phase=Phase.QUITTING) == [Kill(worker, "quick stop") for worker in workers]
    for worker in workers:
        worker.kill_reason = "quick stop"
    assert decided(*workers, phase=Phase.QUITTING) == []


def test_every_phase_is_decided() -> None:
    """None is missing in the table."""
    for phase in Phase:
        assert isinstance(decided(phase=phase, number_workers=0), list)


def test_deciding_changes_nothing() -> None:
    """It is pure: the same question, the same answer."""
    workers = [ready(0, overdue=Overdue(1.0, "x")), booting(1), retiring(2), ready(3, silent_since=1.0)]
    asked = group(*workers, number_workers=3)
    before = [vars(worker).copy() for worker in workers]
    assert decide(asked, NOW) == decide(asked, NOW)
    assert [vars(worker) for worker in workers] == before


# -- when to look again


def wakes_at(*workers: RPCWorker, now: float = NOW, **values: Any) -> float:
    return decide(group(*workers, **values), now).wake_at


def test_nothing_is_waited_for_but_events() -> None:
    """Workers that serve and have no limits of time: the master may sleep for ever."""
    assert wakes_at(ready(0), booting(1)) == math.inf
    assert wakes_at(number_workers=2, phase=Phase.DRAINED) == math.inf


@pytest.mark.parametrize(
    ("worker", "values", "expected"),
    [
        (ready(0, silent_since=90.0), {"timeout": 30.0}, 120.0 + BEAT_SECONDS - LATE_SECONDS),
        (ready(0, questioned_at=99.9), {"timeout": 30.0}, 99.9 + ANSWER_SECONDS),
        (ready(0, silent_since=90.0, kill_reason="x"), {"timeout": 30.0, "phase": Phase.STOPPING}, math.inf),
        (retiring(0, kill_at=133.0), {"phase": Phase.STOPPING}, 133.0),
        (ready(0, ready_at=80.0), {"max_lifetime": 25.0}, 105.0),
        (retiring(0, kill_at=133.0, retired_at=99.8), {"number_workers": 0}, 99.8 + MOVING_SECONDS),
        (ready(0), {"number_workers": 2, "start_at": {1: 104.0}}, 104.0),
        (ready(0), {"number_workers": 2, "spawn_at": 101.0}, 101.0),
        (ready(0), {"number_workers": 2, "spawn_at": 101.0, "phase": Phase.DRAINED}, math.inf),
    ],
)
def test_it_says_when_time_alone_may_ask_for_more(worker: Any, values: dict[str, Any], expected: float) -> None:
    """The first moment at which something may be due that no event tells of."""
    assert wakes_at(worker, **values) == expected


def test_the_earliest_moment_counts_and_none_that_has_passed() -> None:
    """What is due already was asked for, or waits for an event."""
    workers = [ready(0, silent_since=90.0), ready(1, silent_since=80.0)]
    first, second = 110.0 + BEAT_SECONDS, 120.0 + BEAT_SECONDS
    assert wakes_at(*workers, timeout=30.0) == first - LATE_SECONDS
    assert wakes_at(*workers, timeout=30.0, now=first - LATE_SECONDS) == first
    assert wakes_at(*workers, timeout=30.0, now=first) == second - LATE_SECONDS


@pytest.mark.parametrize("seconds", [5.0, 28.95, 29.95, 30.35, 30.65, 31.05, 31.55, 90.0])
def test_a_standstill_of_all_processes_hangs_no_child(seconds: float) -> None:
    """However long it takes: the master sees that it woke late, or that the child is not overdue yet."""
    child = ready(0, silent_since=NOW)
    for began in (0.1 * tenth for tenth in range(1, 5)):  # since a heartbeat; the next one would come at 0.5
        planned = wakes_at(child, timeout=30.0, now=NOW)
        woke = max(planned, NOW + began + seconds)
        is_excused = woke - planned > LATE_SECONDS
        assert is_excused or decided(child, now=woke, timeout=30.0) == []


def test_a_group_that_waits_for_others_starts_nothing() -> None:
    """Until those that it comes after are ready."""
    assert decided(phase=Phase.STARTING, number_workers=1, has_begun=False, held_by=["queues"]) == []
    assert decided(phase=Phase.RUNNING, number_workers=1, has_begun=False, held_by=["queues"]) == []


def test_a_predecessor_goes_first_where_both_would_hold_the_same() -> None:
    """It retires when nobody boots and nobody else retires; its successor starts when it has ended."""
    exclusive: dict[str, Any] = {"overlap": Overlap.PREDECESSOR_FIRST}
    old, other = ready(0, overdue=Overdue(1.0, "x")), ready(1, overdue=Overdue(2.0, "y"))
    assert decided(old, other, **exclusive) == [Retire(old, "x")]
    leaving = retiring(0, retired_at=1.0)
    assert decided(leaving, other, **exclusive) == []
    assert decided(other, number_workers=2, **exclusive) == [Spawn(0, 1)]
    assert decided(ready(0), booting(1), **exclusive) == []


# -- what a plugin's group has more


def test_a_group_stopped_by_hand_keeps_nobody() -> None:
    """Its slots stay wanted, and empty."""
    there = ready(0)
    assert decided(there, number_workers=2, stopped="by hand") == [Retire(there, "by hand")]
    assert decided(number_workers=2, stopped="by hand") == []


def test_a_slot_that_has_finished_gets_nobody() -> None:
    """The others do."""
    assert decided(number_workers=2, finished={0}) == [Spawn(1, 1)]


def test_a_scheduled_group_starts_what_is_due() -> None:
    """And replaces nobody who has ended meanwhile."""
    assert decided(number_workers=2, timetable=DAILY) == []
    assert decided(number_workers=2, timetable=DAILY, due={1}) == [Spawn(1, 1)]


def test_an_overdue_run_of_a_schedule_gets_no_successor() -> None:
    """It retires; what follows starts when it is due."""
    run = ready(0, overdue=Overdue(NOW - 1.0, "max_lifetime"))
    assert decided(run, number_workers=1, timetable=DAILY, overlap=Overlap.SUCCESSOR_FIRST) == [
        Retire(run, "max_lifetime")
    ]


def test_a_silent_child_is_ready_when_it_has_lived_long_enough() -> None:
    """Not before; the policy says when."""
    child = booting(0, counts_as_ready_at=NOW)
    made = group(child)
    assert decide(made, NOW - 1.0) == ([], NOW)
    assert decide(made, NOW).actions == [Admit(child)]


def test_a_child_that_is_not_ready_in_time_is_killed() -> None:
    """Once; a ready one is not."""
    child = booting(0, ready_by=NOW)
    assert decide(group(child), NOW - 1.0) == ([], NOW)
    assert decided(child) == [Kill(child, LATE)]
    assert decided(booting(0, ready_by=NOW, kill_reason=LATE), number_workers=1) == [Spawn(0, 1)]
    assert decided(ready(0, ready_by=NOW)) == []


def test_what_hears_while_it_boots_is_told_and_not_killed() -> None:
    """By a stop of the cluster, and when it is scaled down."""
    child = booting(0, hears_while_booting=True)
    assert decided(child, phase=Phase.STOPPING) == [Retire(child, "stopping")]
    assert decided(child, number_workers=0) == [Retire(child, "scaled down")]


def test_a_plugin_is_kept_while_the_workers_boot_for_the_first_time() -> None:
    """It takes no part in the start."""
    assert decided(phase=Phase.STARTING, number_workers=1, counts_at_start=False) == [Spawn(0, 1)]


# -- the lead


def test_what_needs_the_lead_runs_only_while_it_is_here() -> None:
    """Ready children retire, booting ones are killed, and none is started; with the lead they are started again."""
    there, boots = ready(0), booting(1)
    elsewhere = {"number_workers": 2, "needs_lead": True, "unled": "nobody leads"}
    assert decided(there, boots, **elsewhere) == [Retire(there, "nobody leads"), Kill(boots, "nobody leads")]
    assert decided(**elsewhere) == []
    assert decided(phase=Phase.STARTING, has_begun=False, **elsewhere) == []
    assert decided(number_workers=2, needs_lead=True) == [Spawn(0, 1), Spawn(1, 1)]
