"""What a killed dispatcher has left: the fate of each task, by tickets, outcomes and cells."""

from __future__ import annotations

from rpccluster.ipc.messages import TaskProcessGone
from rpccluster.services.dispatcher.journal import Entry
from rpccluster.services.dispatcher.recovery import Fate, Left, of_gone, of_living
from rpccluster.tasks.wire import Done

DONE = Done(2, 102, 1, "ok", b"")


def entry(number: int, serial: int = 1) -> Entry:
    return Entry(number, serial, 1, 100 + number)


def gone(number: int, begun: int, cause: str = "lost") -> TaskProcessGone:
    return TaskProcessGone(1, "a", 0, 99, number, cause, begun=begun)


def fates(found: object) -> dict[int, Fate]:
    return {finding.entry.number: finding.fate for finding in found}  # type: ignore[attr-defined]


def test_of_a_process_that_lives() -> None:
    """Begun and told, begun and not told, running, about to begin, taken back."""
    entries = [entry(number) for number in range(1, 6)]
    found = list(of_living(entries, tickets=[4, 5], dones=[DONE], running=3, begun=3))
    assert fates(found) == {1: Fate.LOST, 2: Fate.ENDED, 3: Fate.RUNS, 4: Fate.NOT_BEGUN, 5: Fate.NOT_BEGUN}
    assert [finding.done for finding in found if finding.fate is Fate.ENDED] == [DONE]
    assert fates(of_living([entry(4)], (), (), running=0, begun=3)) == {4: Fate.RUNS}


def test_what_ends_while_it_is_looked_at_has_ended() -> None:
    """Its cell was read before its outcome came."""
    assert fates(of_living([entry(2)], (), [DONE], running=2, begun=2)) == {2: Fate.ENDED}


def test_of_a_process_that_has_ended() -> None:
    """What it has begun is lost; where nobody knows what that was, nothing runs twice."""
    entries = [entry(number) for number in range(1, 4)]
    assert fates(of_gone(entries, gone(0, 2))) == {1: Fate.LOST, 2: Fate.LOST, 3: Fate.NOT_BEGUN}
    assert fates(of_gone(entries, gone(0, 0))) == dict.fromkeys((1, 2, 3), Fate.NOT_BEGUN)
    assert fates(of_gone(entries, None)) == dict.fromkeys((1, 2, 3), Fate.LOST)


def test_of_a_process_that_was_killed_for_its_task() -> None:
    """That one has ended with it; what it had ended before is lost."""
    end = gone(2, 2, "timed_out")
    found = {finding.entry.number: (finding.fate, finding.gone) for finding in of_gone(map(entry, (1, 2, 3)), end)}
    assert found == {1: (Fate.LOST, None), 2: (Fate.LOST, end), 3: (Fate.NOT_BEGUN, None)}


def test_a_task_stays_unknown_until_its_process_is_taken() -> None:
    """It is not taken for a new one meanwhile; those of a process that is being killed come back."""
    left = Left([entry(1), entry(2, serial=2)])
    assert (101 in left, 102 in left, 103 in left) == (True, True, False)
    taken = left.take(1)
    assert (taken, 101 in left, left.take(1)) == ([entry(1)], False, [])
    left.add(taken)
    assert 101 in left
    assert sorted(left.serials()) == [1, 2]
    left.take(1)
    left.take(2)
    assert not left
