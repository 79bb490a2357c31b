"""Overlapping the stages of long work: what comes next is made ready while this is worked on.

Threads suffice: reading a file, numpy, torch and hashing all let other threads run meanwhile.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

__all__ = ["PATIENCE_S", "in_background", "prefetch", "sharing_cores", "side_by_side"]

T = TypeVar("T")

#: Seconds after which a pipeline says that it is still waiting, and so can be cancelled.
PATIENCE_S = 0.1

# A thread sees that it is to stop between two items; nothing stops it within one, such as a scan
# being read, and nobody who cancels wants to wait for that.
_FAREWELL_S = 0.1


# Who waited longer than this for what others make does not hold them up.
_WAITED_S = 0.001


class _End:
    """Comes after the last item, with the error that ended them, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Producer(Generic[T]):
    """A thread that walks through an iterable, never more than some items ahead."""

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self._items = items
        self._slots = threading.Semaphore(ahead)
        self._stopped = threading.Event()
        self.ready: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        iterator = iter(self._items)
        try:
            while True:
                # Taken before the item is made, so that memory is bounded to the item.
                self._slots.acquire()
                if self._stopped.is_set():
                    break
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                self.ready.put(item)
            error = None
        except BaseException as raised:  # noqa: BLE001  # raised again where it is waited for
            error = raised
        # A generator further up the chain has a thread of its own to stop.
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
        self.ready.put(_End(error))

    def taken(self) -> None:
        self._slots.release()

    def stop(self) -> None:
        self._stopped.set()
        self._slots.release()
        self._thread.join(_FAREWELL_S)


def prefetch(
    items: Iterable[T], ahead: int = 1, patience_s: float | None = None
) -> Generator[T | None, None, None]:
    """Walk through an iterable in a thread, some items ahead of whoever takes them.

    Parameters
    ----------
    items : iterable
        Lazily made things, none of them None. If it is a generator it is closed in the end.
    ahead : int
        How many items at most are made, or being made, and not taken yet.
    patience_s : float, optional
        Yield None whenever nothing came for so many seconds, so that the taker can be cancelled.

    Yields
    ------
    object or None
        The items in order. An error raised while one was made is raised in its place.

    Notes
    -----
    Closing this generator, or an error in it, stops the thread at the item in hand.
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
            # Let go of it before the next is waited for: a scan is hundreds of megabytes.
            del item
            producer.taken()
    finally:
        producer.stop()


def in_background(*calls: Callable[[], Any]) -> Generator[None, None, list[Any]]:
    """Run functions side by side in threads.

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
        What each returned, in order. The first error in that order is raised.
    """

    def run(call: Callable[[], Any]) -> Generator[tuple[Any], None, None]:
        yield (call(),)

    running = [prefetch(run(call), patience_s=PATIENCE_S) for call in calls]
    values = []
    try:
        # A generator begins with its first step, and all must have begun before one is awaited.
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
    """Find the libraries with threads of their own; those of torch, once it is imported."""
    import torch  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def sharing_cores(waited_s: float) -> AbstractContextManager[object]:
    """Leave the cores to those who make what this thread waits for.

    Of two stages that run at the same time, the one that waits has time to spare: in one thread
    it is slower, but no longer stops the other's threads wherever they wait for each other. On
    two cores a whole detection gains a fifth. The stage that is waited for keeps all threads.

    Parameters
    ----------
    waited_s : float
        How many seconds this thread waited for what it works on now.

    Returns
    -------
    context manager
        While it is open torch computes in the calling thread alone, if that did wait. Other
        threads are not affected.
    """
    return nullcontext() if waited_s < _WAITED_S else _one_thread()


def _one_thread() -> AbstractContextManager[object]:
    """Have torch compute in the calling thread alone; other threads are not affected."""
    limit: AbstractContextManager[object] = _thread_pools().limit(limits=1, user_api="openmp")
    return limit


def side_by_side(work: Callable[[T], object], items: Iterable[T]) -> None:
    """Do one thing to many items, in as many threads as torch may take.

    Most functions of numpy and scipy know but one thread.

    Parameters
    ----------
    work : callable
        Called with each item, in any order.
    items : iterable
        What it is done to. The first error that is raised is raised here.
    """
    import torch

    def alone(item: T) -> None:
        with _one_thread():
            work(item)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(alone, items):
            pass
