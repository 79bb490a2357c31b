"""Overlapping stages of long work: one item is processed while the next is prepared.

Threads suffice: reading a file, numpy, torch and hashing all release the GIL.
"""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

__all__ = ["PATIENCE_S", "in_background", "prefetch", "sharing_cores", "side_by_side"]

T = TypeVar("T")

#: Seconds after which a waiting pipeline yields, so that it can be cancelled.
PATIENCE_S = 0.1

# A stopped thread ends only between two items, never within one, such as a scan being read. A
# cancel must not wait for that.
_FAREWELL_S = 0.1


# The wait for a thread at the end of the process is longer: killed inside torch, a thread takes
# the process down with it (SIGABRT).
_LAST_WAIT_S = 30.0

# A stage that waited longer than this is not the bottleneck.
_WAITED_S = 0.001


class _End:
    """The end of the items, with the error that ended them, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Producer(Generic[T]):
    """A thread that iterates over items, at most a fixed number ahead."""

    running: ClassVar[weakref.WeakSet[_Producer[Any]]] = weakref.WeakSet()

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self._items = items
        self._slots = threading.Semaphore(ahead)
        self._stopped = threading.Event()
        self.ready: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()
        _Producer.running.add(self)

    def _run(self) -> None:
        iterator = iter(self._items)
        try:
            while True:
                # Acquired before the item is made, so that memory stays bounded.
                self._slots.acquire()
                if self._stopped.is_set():
                    break
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                self.ready.put(item)
            error = None
        except BaseException as raised:  # noqa: BLE001  # raised again in the consumer
            error = raised
        # A generator further up the chain has its own thread to stop.
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
        self.ready.put(_End(error))

    def taken(self) -> None:
        self._slots.release()

    def stop(self, patience_s: float = _FAREWELL_S) -> None:
        self._stopped.set()
        self._slots.release()
        self._thread.join(patience_s)


@atexit.register
def _stop_all() -> None:
    """End the threads before Python does: one that ended by an error leaves others at work."""
    producers = list(_Producer.running)
    for patience_s in (0.0, _LAST_WAIT_S):
        for producer in producers:
            producer.stop(patience_s)


def prefetch(
    items: Iterable[T], ahead: int = 1, patience_s: float | None = None
) -> Generator[T | None, None, None]:
    """Iterate over items in a thread, ahead of the consumer.

    Parameters
    ----------
    items : iterable
        Lazily computed items, none of them None. A generator is closed at the end.
    ahead : int
        Maximum number of items made, or being made, and not yet consumed.
    patience_s : float, optional
        Yield None whenever no item arrives for this long, so that the consumer can be cancelled.

    Yields
    ------
    object or None
        The items in order. An error raised while making an item is raised in its place.

    Notes
    -----
    Closing this generator, or an error in it, stops the thread after the current item.
    """
    producer = _Producer(items, ahead)
    try:
        while True:
            try:
                item = producer.ready.get(timeout=patience_s)
            except queue.Empty:
                yield None
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
            # Release the item before waiting for the next: a scan is hundreds of megabytes.
            del item
            producer.taken()
    finally:
        producer.stop()


def in_background(*calls: Callable[[], Any]) -> Generator[None, None, list[Any]]:
    """Run functions in parallel threads.

    Parameters
    ----------
    *calls : callable
        Functions without parameters.

    Yields
    ------
    None
        Every tenth of a second while they run.

    Returns
    -------
    list
        The return values, in order. The first error in that order is raised.
    """

    def run(call: Callable[[], Any]) -> Generator[tuple[Any], None, None]:
        yield (call(),)

    running = [prefetch(run(call), patience_s=PATIENCE_S) for call in calls]
    values = []
    try:
        # A generator starts at its first `next`; start all of them before waiting for one.
        firsts = [next(one) for one in running]
        for one, item in zip(running, firsts, strict=True):
            while item is None:
                yield None
                item = next(one)
            values.append(item[0])
    finally:
        for one in running:
            one.close()
    return values


@cache
def _thread_pools() -> ThreadpoolController:
    """Find the libraries with their own thread pools, including torch."""
    import torch  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def sharing_cores(waited_s: float) -> AbstractContextManager[object]:
    """Leave the cores to the stage that this thread waits for.

    Of two concurrent stages, the one that waits has time to spare. With one thread it is slower,
    but no longer delays the other stage's threads when these wait for each other. A whole
    detection is a fifth faster on two cores. The bottleneck keeps all threads.

    Parameters
    ----------
    waited_s : float
        How long this thread waited for its current item.

    Returns
    -------
    context manager
        Limits torch to the calling thread if it waited. Other threads are not affected.
    """
    return nullcontext() if waited_s < _WAITED_S else _one_thread()


def _one_thread() -> AbstractContextManager[object]:
    """Limit torch to the calling thread; other threads are not affected."""
    limit: AbstractContextManager[object] = _thread_pools().limit(limits=1, user_api="openmp")
    return limit


def side_by_side(work: Callable[[T], object], items: Iterable[T], *, waited_s: float = 0.0) -> None:
    """Apply a function to many items, each in one thread, in as many threads as torch may use.

    Most functions of numpy and scipy use only one thread.

    Parameters
    ----------
    work : callable
        Function called with each item, in any order.
    items : iterable
        Items to process. The first error raised is raised here.
    waited_s : float
        How long the calling thread waited for the items. If it waited, it processes them alone,
        for the reason in `sharing_cores`.
    """
    import torch

    def alone(item: T) -> None:
        with _one_thread():
            work(item)

    if waited_s >= _WAITED_S:
        for item in items:
            alone(item)
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(alone, items):
            pass
