"""Workers that compute the parts of a calibration: this process, further processes, or a Ray cluster.

The division into parts does not depend on the number of workers, one thread computes each part, and results are in the
order of the parts. So a policy has the same bytes with any workers.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol, TypeVar

import joblib
import numpy as np
from threadpoolctl import ThreadpoolController

PART_ROWS = 2_000  # questions per part; constant, because sums over parts depend on it
PARTS_IN_FLIGHT = 2  # per worker: one is computed while the next is queued

Arrays = Mapping[str, np.ndarray]
P = TypeVar("P")
R = TypeVar("R")


class WorkersError(ValueError):
    """The workers are not available."""


class Workers(Protocol):
    """Computes a function of each part."""

    def map(self, function: Callable[[P], Arrays], parts: Sequence[P]) -> Iterator[Arrays]:
        """The results in the order of the parts. Workers in other processes pickle the function and the parts."""
        ...


def single_threaded() -> Any:
    """A context in which BLAS uses one thread, since the number of threads changes the last digits of sums."""
    return _threads().limit(limits=1, user_api="blas")


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def run_single_threaded(function: Callable[[P], R], part: P) -> R:
    """Compute the function of one part with one thread."""
    with single_threaded():
        return function(part)


class InProcess:
    """Computes the parts in this process, one after the other."""

    def map(self, function: Callable[[P], Arrays], parts: Sequence[P]) -> Iterator[Arrays]:
        return (run_single_threaded(function, part) for part in parts)


IN_PROCESS = InProcess()


class Processes:
    """Processes on this machine, which share large arrays through memory-mapped files."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def map(self, function: Callable[[P], R], parts: Sequence[P]) -> Iterator[R]:
        pool = joblib.Parallel(
            self.jobs, return_as="generator", batch_size=1, pre_dispatch=f"{PARTS_IN_FLIGHT} * n_jobs", max_nbytes="1M"
        )
        results: Generator[R] = pool(joblib.delayed(run_single_threaded)(function, part) for part in parts)
        try:
            for result in results:  # noqa: UP028  `yield from` would close `results` before the warnings are off
                yield result
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # joblib warns of the parts that are cancelled after an interruption
                results.close()


class RayWorkers:
    """The workers of a Ray cluster. The function and its arrays are sent once to each machine."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._run_part = ray.remote(num_cpus=1, max_retries=3)(run_single_threaded)

    def map(self, function: Callable[[P], Arrays], parts: Sequence[P]) -> Iterator[Arrays]:
        sent = self._ray.put(function)
        limit = PARTS_IN_FLIGHT * max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
        waiting: deque[Any] = deque()
        for part in parts:
            waiting.append(self._run_part.remote(sent, part))
            if len(waiting) == limit:
                yield self._ray.get(waiting.popleft())
        while waiting:
            yield self._ray.get(waiting.popleft())


@contextmanager
def open_workers(jobs: int = 1, ray: str | None = None) -> Iterator[Workers]:
    """The workers for `jobs` processes, or for the Ray cluster at the address `ray`.

    The address `auto` is the cluster on this machine, which is started with `jobs` workers if there is none.

    Raises:
        WorkersError: Ray is not installed, or no cluster answers at the address.
    """
    if ray is None:
        yield IN_PROCESS if jobs == 1 else Processes(jobs)
        return
    client = _ray()
    _connect(client, jobs, ray)
    try:
        yield RayWorkers(client)
    finally:
        client.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise WorkersError("--ray needs Ray: pip install 'calibrated-router[ray]'") from error
    return ray


def _connect(client: Any, jobs: int, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        client.init(address=address, **quiet)
    except ConnectionError as error:
        if address != "auto":
            raise WorkersError(f"--ray {address}: no Ray cluster answers ({error})") from error
        try:
            client.init(num_cpus=jobs, include_dashboard=False, **quiet)
        except Exception as failed:  # Ray raises a plain Exception when one of its processes does not start
            raise WorkersError(f"--ray auto: Ray did not start on this machine ({failed})") from failed
