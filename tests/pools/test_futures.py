"""What a submitter has of its tasks: one end each, one callback each, and who waits for both."""

from __future__ import annotations

import concurrent.futures
import pickle
import threading
from typing import Any, ClassVar

import pytest

from rpccluster.errors import TaskFailure
from rpccluster.pools.core import kinds
from rpccluster.pools.future import Progress
from rpccluster.pools.futures import Entry, Futures
from rpccluster.pools.submission import class_callbacks, failure_of, unpacked_result, work
from rpccluster.tasks.wire import Done, Failure, pack_failure

TIMEOUT = 30


class Jobs:
    """A class target."""

    heard: ClassVar[list[object]] = []

    def runnable(self, value: object) -> object:
        """Return ``value``."""
        return value

    def callback(self, result: object) -> None:
        """Hear of a result."""
        self.heard.append(("ok", result))

    def error_callback(self, error: object) -> None:
        """Hear of a failure."""
        self.heard.append(("error", error))


class Unloadable:
    """A result that cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


@pytest.fixture
def futures() -> Any:
    """Futures that cannot be cancelled."""
    made = Futures(lambda future: False)
    yield made
    made.close()


def done(value: object) -> Done:
    """Return what a process tells of a result."""
    return Done(1, 1, 1, kinds.OK, pickle.dumps(value), 1.0, 2.0)


def failed() -> Done:
    """Return what a process tells of an exception."""
    return Done(1, 1, 1, kinds.RAISED, pack_failure(Failure("ValueError", "no", "Traceback…")), 1.0, 2.0)


def add(futures: Futures, **callbacks: Any) -> Entry:
    """Add a task of no class."""
    return futures.add(7, "math:sqrt", callbacks.get("on_success"), callbacks.get("on_error"))


def test_a_result_arrives(futures: Futures) -> None:
    """By way of a future as others know it."""
    entry = add(futures)
    assert isinstance(entry.future, concurrent.futures.Future)
    assert entry.future.id == 7
    assert not futures.wait(timeout=0)
    futures.end(entry, kinds.OK, 1, 5, done([1]))
    assert entry.future.result(TIMEOUT) == [1]
    assert futures.wait(timeout=0)
    assert concurrent.futures.wait([entry.future], 0).done == {entry.future}


def test_a_failure_arrives(futures: Futures) -> None:
    """With all that is known of it."""
    entry = add(futures)
    futures.end(entry, kinds.RAISED, 3, 5, failed())
    failure = entry.future.exception(TIMEOUT)
    assert isinstance(failure, TaskFailure)
    assert str(failure) == "raised: ValueError: no"
    assert (failure.task_id, failure.attempt, failure.pid, failure.signal) == (7, 3, 5, None)
    assert (failure.traceback, failure.started_at, failure.ended_at) == ("Traceback…", 1.0, 2.0)


@pytest.mark.parametrize("kind", kinds.FAILURES)
def test_a_failure_can_be_pickled(kind: str) -> None:
    """With every field."""
    failure = failure_of(1, 2, kind, 3, failed())
    copy = pickle.loads(pickle.dumps(failure))
    assert vars(copy) == vars(failure)
    assert str(copy) == str(failure)
    assert type(copy) is TaskFailure


def test_a_failure_without_details_says_what_happened() -> None:
    """In its message."""
    assert str(failure_of(1, 1, kinds.TIMED_OUT, None, None)) == "timed_out: the task was killed at its timeout"
    assert str(failure_of(1, 1, kinds.REJECTED, None, "no such module")) == "rejected: no such module"
    assert str(TaskFailure("cancelled")) == "cancelled"


def test_a_result_that_cannot_be_unpacked_is_a_failure(futures: Futures) -> None:
    """Of the task alone."""
    entry = add(futures)
    futures.end(entry, kinds.OK, 1, 5, done(Unloadable()))
    with pytest.raises(TaskFailure, match="raised: ResultNotUnpacked: cannot unpack the result: ValueError"):
        entry.future.result(TIMEOUT)


@pytest.mark.parametrize("is_failure", [False, True])
def test_one_of_two_callbacks_runs(futures: Futures, is_failure: bool) -> None:
    """Once, after the future has ended, in another thread, before `wait` returns."""
    seen: list[object] = []

    def hear(name: str) -> Any:
        return lambda value: seen.append((name, value, entry.future.done(), threading.current_thread()))

    entry = add(futures, on_success=hear("ok"), on_error=hear("error"))
    futures.end(entry, kinds.RAISED if is_failure else kinds.OK, 1, 5, failed() if is_failure else done(4))
    assert futures.wait(timeout=TIMEOUT)
    ((name, value, was_done, thread),) = seen  # type: ignore[misc]
    assert name == ("error" if is_failure else "ok")
    assert value is entry.future.exception() if is_failure else value == 4
    assert was_done
    assert thread is not threading.main_thread()


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_a_callback_that_raises_hurts_nothing(
    futures: Futures, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next one runs in the same thread."""
    threads: list[object] = []

    def fail(value: object) -> None:
        threads.append(threading.current_thread())
        raise error

    entries = [add(futures, on_success=fail) for _ in range(3)]
    for entry in entries:
        futures.end(entry, kinds.OK, 1, 5, done(1))
    assert futures.wait(timeout=TIMEOUT)
    assert len(threads) == 3
    assert len(set(threads)) == 1
    assert len([record for record in caplog.records if "callback" in record.message]) == 3


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3)])
def test_a_done_callback_that_raises_hurts_nothing(futures: Futures, error: BaseException) -> None:
    """Though the thread that ends the future calls it."""
    seen = []

    def fail(future: object) -> None:
        raise error

    entry = add(futures)
    entry.future.add_done_callback(fail)
    entry.future.add_done_callback(seen.append)
    futures.end(entry, kinds.OK, 1, 5, done(1))
    assert seen == [entry.future]


def test_a_callback_cannot_wait_for_itself(futures: Futures) -> None:
    """It is told so."""
    seen: list[object] = []

    def wait(value: object) -> None:
        try:
            futures.wait()
        except RuntimeError as error:
            seen.append(str(error))

    futures.end(add(futures, on_success=wait), kinds.OK, 1, 5, done(1))
    assert futures.wait(timeout=TIMEOUT)
    assert seen == ["a callback cannot wait for its pool, which waits for the callback"]


def test_waiting_for_some(futures: Futures) -> None:
    """Does not wait for others; a wait from another thread is woken."""
    first, second = add(futures), add(futures)
    futures.end(first, kinds.OK, 1, 5, done(1))
    assert futures.wait([first.future], TIMEOUT)
    assert not futures.wait([first.future, second.future], 0)
    threading.Timer(0.05, lambda: futures.end(second, kinds.OK, 1, 5, done(1))).start()
    assert futures.wait([second.future], TIMEOUT)


def test_callbacks_of_all_that_share_a_key(futures: Futures) -> None:
    """Each submitter's own is called."""
    seen: list[object] = []
    entry = add(futures, on_success=seen.append)
    futures.add_callbacks(entry, "math:sqrt", seen.append, None)
    futures.add_callbacks(entry, "math:sqrt", None, seen.append)
    futures.end(entry, kinds.OK, 1, 5, done(1))
    assert futures.wait(timeout=TIMEOUT)
    assert seen == [1, 1]


def test_a_future_that_its_user_has_ended_stays_so(futures: Futures) -> None:
    """The pool's end of it comes too late."""
    entry = add(futures)
    entry.future.set_result("mine")
    futures.end(entry, kinds.OK, 1, 5, done(1))
    assert entry.future.result() == "mine"
    assert futures.wait(timeout=0)


def test_cancelled_is_what_ended_so(futures: Futures) -> None:
    """Not what was asked for."""
    entry = add(futures)
    assert not entry.future.cancel()
    assert not entry.future.cancelled()
    futures.end(entry, kinds.CANCELLED, 1, None, None)
    assert entry.future.cancelled()
    assert not entry.future.cancel()


def test_progress_is_the_last_told(futures: Futures) -> None:
    """None before."""
    entry = add(futures)
    assert entry.future.progress is None
    entry.note_progress(Progress(1, 2, "half"))
    assert entry.future.progress == (1, 2, "half")


def test_class_targets_have_callbacks() -> None:
    """Of a new instance; of a class that is none, of a function, of what is not there, there are none."""
    name = f"{__name__}:Jobs"
    on_success, on_error = class_callbacks(name)
    assert on_success is not None and on_error is not None
    Jobs.heard.clear()
    on_success(1)
    on_error(2)
    assert Jobs.heard == [("ok", 1), ("error", 2)]
    for target in (f"{__name__}:Unloadable", f"{__name__}:done", f"{__name__}:Nope", "no_such_module:Class"):
        assert class_callbacks(target) == (None, None)


def test_a_module_is_not_imported_for_a_function() -> None:
    """What runs in a process need not be loaded here."""
    import sys

    assert class_callbacks("this_is_not_there:function") == (None, None)
    sys.modules.pop("colorsys", None)
    assert class_callbacks("colorsys:rgb_to_hsv") == (None, None)
    assert "colorsys" not in sys.modules


@pytest.mark.parametrize("target", ["", "operator", 3, None, b"a:b"])
def test_a_target_names_a_function(target: Any) -> None:
    """As text."""
    with pytest.raises(ValueError, match="expected 'module:function'"):
        work(target, (), {}, 0, 0)


@pytest.mark.parametrize("argument", [lambda: None, threading.Lock(), (item for item in ())])
def test_arguments_that_cannot_be_packed(argument: object) -> None:
    """Raise at once, in the submitter."""
    with pytest.raises(TypeError, match="cannot pack the arguments of a:b: "):
        work("a:b", (argument,), {}, 0, 0)


@pytest.mark.parametrize("limits", [(-1, 0), (0, -1), (float("nan"), 0)])
def test_limits_are_seconds(limits: tuple[float, float]) -> None:
    """Of which there are no negative ones."""
    with pytest.raises(ValueError, match="expected seconds, 0 for no limit"):
        work("a:b", (), {}, *limits)


def test_arguments_are_pickled() -> None:
    """Both kinds."""
    assert unpacked_result(work("a:b", (1,), {"x": 2}, 0, 0).payload) == ((1,), {"x": 2})


def test_a_copy_of_the_process_has_no_futures_of_its_parents(futures: Futures) -> None:
    """Each ends at once, even if another thread had its lock when the process was forked."""
    entry = add(futures)
    entry.future._condition.acquire()
    futures.leave(RuntimeError("a copy"))
    with pytest.raises(RuntimeError, match="a copy"):
        entry.future.result(0)
