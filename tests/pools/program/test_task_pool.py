"""`rpccluster.TaskPool`, with real processes: every task has one outcome, told once."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

from rpccluster import PoolFull, TaskFailure, TaskPool
from rpccluster.testing import wait_until

from . import work

WORK = work.__name__
TIMEOUT = 60
FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))


@pytest.fixture(scope="module")
def shared() -> Iterator[TaskPool]:
    """A pool that many tests use."""
    with TaskPool(2, [WORK, "operator"]) as pool:
        yield pool


def failure_of(future: Any) -> TaskFailure:
    """Return why a task failed."""
    error = future.exception(TIMEOUT)
    assert isinstance(error, TaskFailure), error
    return error


def target(function: Any) -> str:
    """Return the name of a function of `work`."""
    return f"{WORK}:{function.__qualname__}"


# -- results


def test_a_result_comes_back(shared: TaskPool) -> None:
    """Of any arguments that can be pickled, from another process."""
    assert shared.submit(target(work.echo), 1, "a", {2}).result(TIMEOUT) == (1, "a", {2})
    assert shared.submit(target(work.echo), x=3).result(TIMEOUT) == ((), {"x": 3})
    assert shared.submit(target(work.pid)).result(TIMEOUT) in shared.pids
    assert shared.submit("operator:add", 2, 3).result(TIMEOUT) == 5


def test_the_future_is_one_as_others_are(shared: TaskPool) -> None:
    """For `concurrent.futures`, with a number of its own."""
    futures = [shared.submit("operator:neg", number) for number in range(20)]
    done = concurrent.futures.wait(futures, TIMEOUT)
    assert done.not_done == set()
    assert sorted(future.result() for future in concurrent.futures.as_completed(futures)) == list(range(-19, 1))
    assert len({future.id for future in futures}) == 20


@pytest.mark.parametrize("size", [0, 1, 70_000, 1 << 20, 20 << 20])
def test_values_of_all_sizes(shared: TaskPool, size: int) -> None:
    """There and back."""
    value = os.urandom(size)
    assert shared.submit(target(work.echo), value).result(TIMEOUT) == (value,)


def test_many_large_values_at_once(shared: TaskPool) -> None:
    """None stops another, though no socket takes one whole."""
    values = [bytes([number]) * (1 << 20) for number in range(30)]
    futures = [shared.submit(target(work.echo), value) for value in values]
    assert [future.result(TIMEOUT)[0] for future in futures] == values


def test_many_tasks_from_many_threads(shared: TaskPool) -> None:
    """Each gets its own result."""
    wrong: list[object] = []

    def submit(base: int) -> None:
        futures = [shared.submit("operator:add", base, number) for number in range(300)]
        wrong.extend(f for number, f in enumerate(futures) if f.result(TIMEOUT) != base + number)

    threads = [threading.Thread(target=submit, args=(base,)) for base in range(0, 8000, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert wrong == []
    assert shared.wait(timeout=TIMEOUT)


# -- bad input


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("os:getpid", "found the target 'os:getpid', expected one of: "),
        (f"{WORK}:nope", "expected one that is there"),
        (f"{WORK}:WORK_IS_NO_NAME", "expected one that is there"),
        (f"{WORK}:__name__", "found the target"),
    ],
)
def test_a_target_that_may_not_be_run_is_rejected(shared: TaskPool, name: str, text: str) -> None:
    """It has not run."""
    failure = failure_of(shared.submit(name, retries=5))
    assert (failure.kind, failure.attempt) == ("rejected", 1)
    assert text in failure.message


@pytest.mark.parametrize(
    ("function", "args", "kind", "text"),
    [
        (work.fail, ("why",), "raised", "ValueError: why"),
        (work.fail_unpicklably, (), "raised", "Unpicklable"),
        (work.fail_by_timeout, (), "raised", "TimeoutError: my own"),
        (work.unpicklable, (), "raised", "cannot pack the result"),
        (work.sys_exit, (), "raised", "SystemExit: 3"),
        (work.leave, (0,), "process_lost", "its process ended"),
        (work.leave, (7,), "process_lost", "its process ended"),
        (work.kill_itself, (), "process_lost", "its process ended"),
    ],
)
def test_each_bad_end_is_told_once(shared: TaskPool, function: Any, args: Any, kind: str, text: str) -> None:
    """By one callback, with the future; the pool goes on."""
    heard: list[Any] = []
    future = shared.submit(target(function), *args, on_success=heard.append, on_error=heard.append)
    failure = failure_of(future)
    assert failure.kind == kind
    assert text in str(failure)
    assert shared.wait([future], TIMEOUT)
    assert heard == [failure]
    assert (failure.task_id, failure.attempt) == (future.id, 1)
    assert failure.pid
    assert failure.started_at
    if function is work.kill_itself:
        assert failure.signal == signal.SIGKILL
    if function is work.fail:
        assert "work.py" in failure.traceback
    assert shared.submit("operator:neg", 1).result(TIMEOUT) == -1


def test_a_task_that_closes_all_descriptors_has_one_outcome(shared: TaskPool) -> None:
    """Whatever that is; the next ones run."""
    failure_of(shared.submit(target(work.close_all)))
    assert shared.submit("operator:neg", 1).result(TIMEOUT) == -1


def test_arguments_that_cannot_be_packed_raise_at_once(shared: TaskPool) -> None:
    """Nothing is submitted."""
    with pytest.raises(TypeError, match="cannot pack the arguments"):
        shared.submit(target(work.echo), threading.Lock())
    assert shared.wait(timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"priority": "x"}, TypeError),
        ({"retries": 1.5}, TypeError),
        ({"retries": 1 << 70}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"soft_timeout": -1}, ValueError),
        ({"key": []}, TypeError),
    ],
)
def test_options_of_a_task_that_cannot_be_raise_at_once(shared: TaskPool, options: Any, error: Any) -> None:
    """Nothing is submitted, and the pool goes on."""
    with pytest.raises(error):
        shared.submit(target(work.echo), **options)
    assert shared.wait(timeout=TIMEOUT)
    assert shared.submit(target(work.echo), 1, timeout=Decimal(60), priority=True).result(TIMEOUT) == (1,)


def test_a_target_that_cannot_be_sent_raises_at_once(shared: TaskPool) -> None:
    """It is no name of UTF-8."""
    with pytest.raises(ValueError, match="expected 'module:function'"):
        shared.submit(f"{WORK}:\ud800")
    assert shared.submit(target(work.echo), 1).result(TIMEOUT) == (1,)


def test_targets_that_cannot_be_imported() -> None:
    """Reject all tasks with the reason, those that wait and later ones."""
    with TaskPool(1, ["no_such_module_anywhere"]) as pool:
        first = failure_of(pool.submit("no_such_module_anywhere:f"))
        second = failure_of(pool.submit("operator:neg", 1))
    for failure in (first, second):
        assert failure.kind == "rejected"
        assert "no_such_module_anywhere" in failure.message


@pytest.mark.parametrize(
    "options",
    [
        {"processes": 0},
        {"queue_size": 0},
        {"timeout": -1},
        {"max_memory": "much"},
        {"targets": "operator"},
        {"targets": ["no module"]},
    ],
)
def test_options_that_cannot_be(options: Any) -> None:
    """Raise ValueError that names them."""
    with pytest.raises(ValueError, match=next(iter(options))):
        TaskPool(**options)


# -- limits


@pytest.mark.parametrize("function", [work.spin, work.sleep, work.hold_the_gil, work.ignore_term, work.fork_children])
def test_a_limit_holds_whatever_the_task_does(shared: TaskPool, function: Any) -> None:
    """Told once as ``timed_out``; nothing of the task is left."""
    heard: list[Any] = []
    before = time.monotonic()
    future = shared.submit(target(function), timeout=0.2, on_success=heard.append, on_error=heard.append)
    failure = failure_of(future)
    assert failure.kind == "timed_out"
    assert time.monotonic() - before >= 0.2
    assert shared.wait([future], TIMEOUT)
    assert heard == [failure]
    assert failure.pid is not None
    wait_until(lambda: not psutil.pid_exists(failure.pid or 0), TIMEOUT)

    def left() -> list[psutil.Process]:
        mine = psutil.Process().children(recursive=True)
        return [child for child in mine if "time.sleep(3600)" in _command(child)]

    wait_until(lambda: not left(), TIMEOUT)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_the_pools_limit_is_every_tasks() -> None:
    """Unless it has its own."""
    with TaskPool(2, [WORK], timeout=0.2) as pool:
        own = pool.submit(target(work.sleep), 0.5, timeout=0)
        assert failure_of(pool.submit(target(work.sleep))).kind == "timed_out"
        assert own.result(TIMEOUT) == 0.5


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_soft_limit_lets_a_task_clean_up(shared: TaskPool, tmp_path: Path, goes_on: bool) -> None:
    """And the hard one comes anyway."""
    mark = tmp_path / "mark"
    future = shared.submit(target(work.clean_up), str(mark), goes_on, soft_timeout=0.1, timeout=0.6)
    if goes_on:
        assert failure_of(future).kind == "timed_out"
    else:
        assert future.result(TIMEOUT) == "cleaned up"
    assert mark.read_text() == "cleaned\n"


def test_a_task_past_max_memory_is_ended() -> None:
    """Before it has much more; the pool goes on."""
    with TaskPool(1, [WORK], max_memory="120M") as pool:
        assert failure_of(pool.submit(target(work.take_memory), 1024)).kind == "out_of_memory"
        assert pool.submit(target(work.take_memory), 1).result(TIMEOUT) == 1


def test_processes_are_recycled() -> None:
    """After ``max_tasks``; no task notices."""
    with TaskPool(2, [WORK], max_tasks=5) as pool:
        futures = [pool.submit(target(work.pid)) for _ in range(100)]
        pids = [future.result(TIMEOUT) for future in futures]
    assert max(pids.count(pid) for pid in set(pids)) <= 5
    assert len(set(pids)) >= 20


# -- order, retries, keys, cancel


def test_a_failure_is_repeated(shared: TaskPool, tmp_path: Path) -> None:
    """Until it succeeds; the callbacks hear of the last attempt only."""
    mark = tmp_path / "mark"
    heard: list[Any] = []
    future = shared.submit(target(work.fail_until), str(mark), 3, retries=5, on_success=heard.append)
    assert future.result(TIMEOUT) == 3
    assert shared.wait([future], TIMEOUT)
    assert mark.read_text().split() == ["1", "2", "3"]
    assert heard == [3]


def test_the_last_failure_is_told(shared: TaskPool, tmp_path: Path) -> None:
    """With the number of its attempt."""
    heard: list[Any] = []
    future = shared.submit(target(work.fail_until), str(tmp_path / "mark"), 9, retries=1, on_error=heard.append)
    failure = failure_of(future)
    assert (failure.attempt, failure.message) == (2, "attempt 2")
    assert shared.wait([future], TIMEOUT)
    assert heard == [failure]


def test_a_key_stands_for_one_task(tmp_path: Path) -> None:
    """As long as it waits or runs."""
    mark = str(tmp_path / "mark")
    with TaskPool(1, [WORK]) as pool:
        first = pool.submit(target(work.wait_for), mark, key="k")
        waiting = pool.submit(target(work.echo), 1, key=("other", 1))
        assert pool.submit(target(work.echo), 2, key="k") is first
        assert pool.submit(target(work.echo), 2, key=("other", 1)) is waiting
        Path(mark).touch()
        assert first.result(TIMEOUT) == mark
        assert pool.submit(target(work.echo), 3, key="k").result(TIMEOUT) == (3,)
        assert waiting.result(TIMEOUT) == (1,)


def test_a_waiting_task_is_cancelled(tmp_path: Path) -> None:
    """It never runs."""
    mark, notes = str(tmp_path / "mark"), tmp_path / "notes"
    with TaskPool(1, [WORK]) as pool:
        running = pool.submit(target(work.wait_for), mark)
        heard: list[Any] = []
        waiting = pool.submit(target(work.note), str(notes), on_error=heard.append)
        assert waiting.cancel()
        assert waiting.cancelled()
        assert not waiting.cancel()
        assert failure_of(waiting).kind == "cancelled"
        Path(mark).touch()
        assert running.result(TIMEOUT) == mark
    assert [failure.kind for failure in heard] == ["cancelled"]
    assert not notes.exists()


def test_a_running_task_is_cancelled(tmp_path: Path) -> None:
    """By the end of its process, and of nothing else."""
    notes = tmp_path / "notes"
    with TaskPool(1, [WORK]) as pool:
        future = pool.submit(target(work.note_and_sleep), str(notes), "begun", 3600, retries=3)
        wait_until(notes.exists, TIMEOUT)
        behind = pool.submit(target(work.echo), 1)
        assert future.cancel()
        assert failure_of(future).kind == "cancelled"
        assert behind.result(TIMEOUT) == (1,)
    assert notes.read_text() == "begun\n"


def test_a_task_that_is_cancelled_does_not_stand_for_its_key(tmp_path: Path) -> None:
    """While its process is being killed another one is submitted, and each has its end."""
    notes = tmp_path / "notes"
    with TaskPool(1, [WORK]) as pool:
        first = pool.submit(target(work.note_and_sleep), str(notes), "begun", 3600, key="k")
        wait_until(notes.exists, TIMEOUT)
        assert first.cancel()
        second = pool.submit(target(work.echo), 2, key="k")
        assert second is not first
        assert failure_of(first).kind == "cancelled"
        assert second.result(TIMEOUT) == (2,)
        assert pool.submit(target(work.echo), 3, key="k").result(TIMEOUT) == (3,)


def test_progress_is_told(shared: TaskPool, tmp_path: Path) -> None:
    """While the task runs."""
    mark = tmp_path / "mark"
    future = shared.submit(target(work.tell_progress), str(mark))
    assert future.progress is None or future.progress.done == 1
    wait_until(lambda: future.progress is not None, TIMEOUT)
    assert future.progress == (1, 2, "half")
    assert not future.done()
    mark.touch()
    assert future.result(TIMEOUT) == future.id


def test_what_is_behind_a_long_task_runs_elsewhere(tmp_path: Path) -> None:
    """Though it was sent ahead, behind many short ones."""
    mark = tmp_path / "mark"
    with TaskPool(2, [WORK, "operator"]) as pool:
        for future in [pool.submit("operator:neg", 1) for _ in range(500)]:
            future.result(TIMEOUT)
        futures = [pool.submit("operator:neg", 1) for _ in range(50)]
        stuck = pool.submit(target(work.wait_for), str(mark))
        futures += [pool.submit("operator:neg", 1) for _ in range(300)]
        for future in futures:
            assert future.result(TIMEOUT) == -1
        assert not stuck.done()
        mark.touch()


# -- a full pool


def test_a_full_pool_refuses_or_waits(tmp_path: Path) -> None:
    """As the submitter wishes; the room is what may wait, beside what runs."""
    mark = tmp_path / "mark"
    with TaskPool(1, [WORK], queue_size=2) as pool:
        futures = [pool.submit(target(work.wait_for), str(mark))]
        wait_until(lambda: pool.pids, TIMEOUT)
        futures += [pool.submit(target(work.echo), number, wait=False) for number in range(2)]
        with pytest.raises(PoolFull, match="2 tasks wait already"):
            pool.submit(target(work.echo), 2, wait=False)
        submitted: list[Any] = []
        thread = threading.Thread(target=lambda: submitted.append(pool.submit(target(work.echo), 3)))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        mark.touch()
        thread.join(TIMEOUT)
        assert submitted[0].result(TIMEOUT) == (3,)


def test_a_callback_of_a_future_may_submit_to_a_full_pool() -> None:
    """It cannot wait: it is the thread that makes room."""
    with TaskPool(1, ["operator"], queue_size=1) as pool:
        more: list[Any] = []
        first = pool.submit("operator:neg", 1)
        first.add_done_callback(lambda _: more.extend(pool.submit("operator:neg", number) for number in range(5)))
        first.result(TIMEOUT)
        wait_until(lambda: len(more) == 5, TIMEOUT)
        assert [future.result(TIMEOUT) for future in more] == [0, -1, -2, -3, -4]


def test_map_looks_ahead_so_far(shared: TaskPool) -> None:
    """Through an endless iterable, in order."""
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    results = shared.map("operator:neg", numbers(), look_ahead=10)
    assert [next(results) for _ in range(50)] == [-number for number in range(50)]
    assert len(taken) <= 50 + 10 + 1
    results.close()  # type: ignore[attr-defined]


# -- callbacks


def test_class_targets_hear_of_their_end(shared: TaskPool) -> None:
    """In the process that submitted, one of both methods."""
    work.heard.clear()
    futures = [shared.submit(target(work.Job), value) for value in (4, -1)]
    assert futures[0].result(TIMEOUT) == 8
    assert shared.wait(futures, TIMEOUT)
    assert sorted(work.heard) == sorted([(os.getpid(), "ok", 8), (os.getpid(), "error", "raised: ValueError: -1")])


def test_callbacks_have_run_when_close_returns() -> None:
    """All of them, also slow ones, and one that raises."""
    heard: list[int] = []

    def hear(result: int) -> None:
        time.sleep(0.01)
        heard.append(result)
        if result == -3:
            raise SystemExit(4)

    with TaskPool(2, ["operator"]) as pool:
        for number in range(10):
            pool.submit("operator:neg", number, on_success=hear)
    assert sorted(heard) == list(range(-9, 1))


def test_a_callback_may_submit() -> None:
    """Which `wait` waits for, too."""
    with TaskPool(1, ["operator"]) as pool:
        heard: list[int] = []
        pool.submit("operator:neg", 1, on_success=lambda r: pool.submit("operator:neg", r, on_success=heard.append))
        assert pool.wait(timeout=TIMEOUT)
        assert heard == [1]


# -- its life


def test_a_closed_pool_takes_nothing_and_leaves_nothing() -> None:
    """It may be closed twice; a submitter that waits for room is told."""
    with TaskPool(1, [WORK]) as pool:
        future = pool.submit(target(work.pid))
        process = psutil.Process(future.result(TIMEOUT))
        master = process.parent()
    assert master is not None
    assert not process.is_running()
    assert not master.is_running()
    with pytest.raises(RuntimeError, match="the pool is closed"):
        pool.submit(target(work.pid))
    pool.close()
    pool.terminate()


def test_close_waits_and_terminate_does_not(tmp_path: Path) -> None:
    """What has not ended then is cancelled, and its callback has run."""
    pool = TaskPool(1, [WORK], queue_size=1)
    slow = pool.submit(target(work.sleep), 0.3)
    pool.close()
    assert slow.result(0) == 0.3
    pool = TaskPool(1, [WORK])
    heard: list[Any] = []
    futures = [pool.submit(target(work.sleep), on_error=heard.append) for _ in range(3)]
    wait_until(lambda: pool.pids, TIMEOUT)
    pool.terminate()
    assert [failure_of(future).kind for future in futures] == ["cancelled"] * 3
    assert len(heard) == 3


def test_an_exception_ends_the_block_at_once() -> None:
    """A pool that nobody wants any more is not waited for."""
    with pytest.raises(KeyError), TaskPool(1, [WORK]) as pool:
        future = pool.submit(target(work.sleep))
        raise KeyError
    assert failure_of(future).kind == "cancelled"


def test_a_submitter_that_waits_hears_of_the_end(tmp_path: Path) -> None:
    """Instead of waiting for ever."""
    pool = TaskPool(1, [WORK], queue_size=1)
    told: list[str] = []

    def submit() -> None:
        try:
            for _ in range(10):
                pool.submit(target(work.sleep))
        except RuntimeError as error:
            told.append(str(error))

    thread = threading.Thread(target=submit)
    thread.start()
    wait_until(lambda: pool._edge.core.is_full, TIMEOUT)
    pool.terminate()
    thread.join(TIMEOUT)
    assert told == ["the pool is terminated"]


def test_a_forked_copy_of_the_program_is_told(shared: TaskPool) -> None:
    """Its copy of the pool raises, its futures end, and the parent's pool is undisturbed."""
    future = shared.submit(target(work.sleep), 0.3)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        text = ""
        for act in (lambda: shared.submit(target(work.pid)), lambda: future.result(5), shared.close):
            try:
                act()
            except BaseException as error:
                text += f"{type(error).__name__}: {error}\n"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        told = pipe.read().splitlines()
    os.waitpid(pid, 0)
    expected = f"RuntimeError: the pool belongs to process {os.getpid()}, of which this is a copy"
    assert len(told) == 3
    assert all(line.startswith(expected) for line in told)
    assert future.result(TIMEOUT) == 0.3


def test_the_death_of_the_little_master_hangs_nothing(tmp_path: Path) -> None:
    """What had begun is lost, the rest runs under another one."""
    mark = tmp_path / "mark"
    with TaskPool(2, [WORK, "operator"]) as pool:
        running = [pool.submit(target(work.note_and_sleep), str(mark), "x", 3600) for _ in range(2)]
        wait_until(lambda: mark.exists() and mark.read_text() == "x\nx\n", TIMEOUT)
        waiting = [pool.submit("operator:neg", number) for number in range(20)]
        os.kill(pool._edge.processes.master_pid, signal.SIGKILL)
        assert [failure_of(future).kind for future in running] == ["process_lost"] * 2
        assert [future.result(TIMEOUT) for future in waiting] == [-number for number in range(20)]


def test_an_interrupted_turn_hangs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal's handler may raise while the thread that waits for a result dispatches."""
    with TaskPool(1, [WORK, "operator"]) as pool:
        assert pool.submit("operator:neg", 1).result(TIMEOUT) == -1

        def interrupt(of: object) -> None:
            raise KeyboardInterrupt

        waiting = [pool.submit(target(work.sleep), 0.2) for _ in range(2)]
        monkeypatch.setattr(pool._edge.processes, "happened", interrupt)
        with pytest.raises(KeyboardInterrupt):
            waiting[0].result(TIMEOUT)
        monkeypatch.undo()
        assert pool.wait(waiting, TIMEOUT)
        assert failure_of(waiting[1]).kind == "process_lost"


def test_a_fault_of_the_pool_itself_hangs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, and every task ends, those that wait and later ones."""
    with TaskPool(1, [WORK, "operator"]) as pool:
        assert pool.submit("operator:neg", 1).result(TIMEOUT) == -1

        def fail(of: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(pool._edge.processes, "happened", fail)
        futures = [pool.submit("operator:neg", number) for number in range(3)]
        assert pool.wait(futures, TIMEOUT)
        ends = [future.exception(TIMEOUT) for future in futures]  # what was told before it closed counts
        assert {failure_of(future).kind for future, end in zip(futures, ends) if end} == {"process_lost"}
        assert "the pool was interrupted" in failure_of(pool.submit("operator:neg", 1)).message
        monkeypatch.undo()


def test_one_thread_waits_for_a_result_and_others_are_told() -> None:
    """Whichever waits does the work of all; each hears of its own, and of what nobody waits for."""
    with TaskPool(2, [WORK, "operator"]) as pool:
        pool.submit("operator:neg", 1).result(TIMEOUT)
        heard: list[int] = []
        slow = pool.submit(target(work.sleep), 0.3)
        waiting = threading.Thread(target=slow.result, args=(TIMEOUT,))
        waiting.start()
        for number in range(200):
            assert pool.submit("operator:neg", number, on_success=heard.append).result(TIMEOUT) == -number
        late = pool.submit("operator:neg", 5)
        wait_until(late.done, TIMEOUT)
        with pytest.raises(concurrent.futures.TimeoutError):
            pool.submit(target(work.sleep), 0.2).result(0.01)
        cancelled = pool.submit(target(work.sleep))
        threading.Timer(0.05, cancelled.cancel).start()
        assert failure_of(cancelled).kind == "cancelled"
        waiting.join(TIMEOUT)
        assert slow.done()
    assert len(heard) == 200


# -- many


def test_kills_at_random_under_load(tmp_path: Path) -> None:
    """No future hangs, none gets another's result, what was begun runs once or is lost."""
    notes = tmp_path / "notes"
    kills = 1000 if FULL_SCALE else 20
    tasks: dict[str, Any] = {}
    with TaskPool(4, [WORK], spare=2) as pool:
        wait_until(lambda: len(pool.pids) == 4, TIMEOUT)
        for kill in range(kills):
            for number in range(20):
                name = f"{kill}-{number}"
                tasks[name] = pool.submit(target(work.note_and_sleep), str(notes), name, 0.001 * (number % 3))
            pids = pool.pids
            if pids:
                try:
                    os.kill(pids[kill % len(pids)], signal.SIGKILL)
                except ProcessLookupError:
                    pass
        ends = {name: future.exception(TIMEOUT) for name, future in tasks.items()}
    runs = notes.read_text().split()
    for name, error in ends.items():
        if error is None:
            assert tasks[name].result() == name
            assert runs.count(name) == 1 if not FULL_SCALE else True
        else:
            assert isinstance(error, TaskFailure)
            assert error.kind == "process_lost"
    assert len(runs) == len(set(runs)), "an attempt was begun twice"
    assert sum(1 for error in ends.values() if error) <= kills


def test_many_tasks_leave_nothing_behind() -> None:
    """Memory and descriptors of the program are as they were."""
    count = 90_000 if FULL_SCALE else 6_000
    me = psutil.Process()
    with TaskPool(2, ["operator"]) as pool:
        for _ in range(10 if FULL_SCALE else 3):
            for future in [pool.submit("operator:neg", 1) for _ in range(1000)]:
                future.result(TIMEOUT)
        pool.wait(timeout=TIMEOUT)
        del future
        gc.collect()
        before, descriptors = me.memory_info().rss, me.num_fds()
        for _ in range(count // 1000):
            for future in [pool.submit("operator:neg", 1) for _ in range(1000)]:
                future.result(TIMEOUT)
        pool.wait(timeout=TIMEOUT)
        gc.collect()
        assert me.num_fds() == descriptors
        assert me.memory_info().rss - before < 5 << 20
