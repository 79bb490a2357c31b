"""Work on many scans by several processes: on this machine, or on a Dask cluster.

A work function takes what all items share and one item, and lies in a module, so that another
process can import it. Its results go to the caller, and its files to folders that all machines
share.
"""

from __future__ import annotations

import os
import pickle
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import get_context
from typing import Any, TypeVar

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.pipeline import PATIENCE_S

__all__ = ["Crew", "DaskCrew", "LocalCrew"]

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

# A process that was killed, for example by the system for want of memory, is replaced this often.
_REPLACED = 3


class Crew(ABC):
    """Processes that share the work on many scans."""

    @abstractmethod
    def run(
        self, work: Callable[[S, T], R], shared: S, items: Sequence[T]
    ) -> Generator[tuple[int, R] | None, None, None]:
        """Apply a function to items.

        Parameters
        ----------
        work : callable
            Called as ``work(shared, item)`` in another process; a function of a module.
        shared : object
            Sent to each process once. Like items and results it is pickled.
        items : sequence
            One for each call.

        Yields
        ------
        tuple of (int, object), or None
            Place in `items` and result, as soon as there is one; None while waiting.

        Raises
        ------
        InputError
            If the work raises one, or the processes end again and again.
        """


class LocalCrew(Crew):
    """Processes on this machine.

    Parameters
    ----------
    jobs : int
        How many. Each has its share of the cores.

    Raises
    ------
    InputError
        If it is not 1 or more.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise InputError(f"Expected 1 or more jobs, got {jobs}; change it.")
        self.jobs = jobs

    def run(
        self, work: Callable[[S, T], R], shared: S, items: Sequence[T]
    ) -> Generator[tuple[int, R] | None, None, None]:
        """Apply a function to items; see `Crew.run`."""
        payload = pickle.dumps((work, shared))
        left = dict(enumerate(items))
        for _ in range(_REPLACED):
            if not left:
                return
            for place, result in self._try(payload, left):
                if place is None:
                    yield None
                else:
                    del left[place]
                    yield place, result
        if left:
            raise InputError(
                f"The processes of {self.jobs} jobs ended {_REPLACED} times before their work was "
                "done, probably for want of memory; ask for fewer jobs."
            )

    def _try(
        self, payload: bytes, left: dict[int, Any]
    ) -> Generator[tuple[int | None, Any], None, None]:
        """Work on what is left until all is done or a process is killed."""
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        # A forked process would inherit locks that threads of this one hold.
        pool = ProcessPoolExecutor(
            min(self.jobs, len(left)),
            mp_context=get_context("spawn"),
            initializer=_begin,
            initargs=(payload, threads),
        )
        finished = False
        try:
            running: dict[Future[Any], int] = {
                pool.submit(_work_here, item): place for place, item in left.items()
            }
            while running:
                done, _ = wait(running, PATIENCE_S, FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
                if not done:
                    yield None, None
            finished = True
        except BrokenProcessPool:
            return
        finally:
            if not finished:
                for process in list((pool._processes or {}).values()):
                    process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


# The work and what it shares, in a process of a local crew.
_given: tuple[Callable[[Any, Any], Any], Any] | None = None


def _begin(payload: bytes, threads: int) -> None:
    global _given
    _use_threads(threads)
    _given = pickle.loads(payload)


def _work_here(item: Any) -> Any:
    assert _given is not None
    work, shared = _given
    return _call(work, shared, item)


def _use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def _call(work: Callable[[Any, Any], Any], shared: Any, item: Any) -> Any:
    try:
        return work(shared, item)
    except InputError as error:
        # Others of its kind need not survive the way between processes.
        raise InputError(str(error)) from None


class DaskCrew(Crew):
    """Workers of a Dask cluster.

    The folders of scans, results and cache must be at the same paths on all machines. Each task of
    a worker uses one thread for its arithmetic, so that a machine is used whole by as many workers,
    or threads of a worker, as it has cores. A task whose worker is lost runs again on another.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``tcp://10.0.0.5:8786``.

    Raises
    ------
    InputError
        If dask.distributed is missing, or no scheduler answers.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise InputError(
                "A cluster needs dask.distributed; install it with: pip install "
                "'napari-dino-uad[cluster]'."
            ) from error
        try:
            # A client that finds nobody waits for long, and complains when it is forgotten.
            _knock(address)
            connect: Any = Client
            self._client = connect(address, timeout=_ANSWER_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"No Dask scheduler answers at {address} ({type(error).__name__}); check the "
                "address, such as tcp://10.0.0.5:8786."
            ) from error

    def run(
        self, work: Callable[[S, T], R], shared: S, items: Sequence[T]
    ) -> Generator[tuple[int, R] | None, None, None]:
        """Apply a function to items; see `Crew.run`."""
        from distributed import KilledWorker

        client = self._client
        # A task rather than scattered data: it runs again where its result is lost.
        common = client.submit(_same, pickle.dumps((work, shared)), pure=False)
        running = {
            client.submit(_work_there, common, item, pure=False): place
            for place, item in enumerate(items)
        }
        waiting_since = time.monotonic()
        try:
            while running:
                done = [future for future in running if future.done()]
                for future in done:
                    yield running.pop(future), future.result()
                    waiting_since = time.monotonic()
                if done:
                    continue
                if time.monotonic() - waiting_since > _NO_WORKER_S:
                    self._check_workers()
                yield None
                time.sleep(PATIENCE_S)
        except KilledWorker as error:
            raise InputError(
                "The workers of the cluster ended again and again on the same scan, probably for "
                "want of memory; give them more, or fewer threads."
            ) from error
        finally:
            client.cancel([*running, common])

    def _check_workers(self) -> None:
        """Refuse to wait for ever for workers that are not there."""
        if not self._client.scheduler_info()["workers"]:
            raise InputError(
                "The Dask scheduler has no workers; start some with: dask worker ADDRESS."
            )

    def close(self) -> None:
        """Leave the cluster."""
        self._client.close()


# Seconds in which a scheduler must answer, and after which a cluster is asked for its workers.
_ANSWER_S, _NO_WORKER_S = 10, 30


def _knock(address: str) -> None:
    """Connect to an address and hang up; raises OSError or ValueError if nobody is there."""
    from distributed.comm.addressing import get_address_host_port, parse_address

    if parse_address(address)[0] in ("tcp", "tls"):
        host, port = get_address_host_port(address)
        socket.create_connection((host, port), _ANSWER_S).close()


def _same(payload: bytes) -> bytes:
    return payload


@lru_cache(maxsize=1)
def _unpacked(payload: bytes) -> tuple[Callable[[Any, Any], Any], Any]:
    _use_threads(1)
    return pickle.loads(payload)


def _work_there(payload: bytes, item: Any) -> Any:
    work, shared = _unpacked(payload)
    return _call(work, shared, item)
