"""Who computes the parts of a calibration: this process, processes beside it, or the workers of a Ray cluster.

A part never depends on how many workers there are, each is computed by one thread, and results come in the order of the
parts. So a policy has the same bytes whoever computed it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol, TypeVar

import joblib
import numpy as np
from threadpoolctl import ThreadpoolController

PART_ROWS = 2_000  # questions of a part; a constant, since sums over parts would change with it
UNDER_WAY = 2  # parts that are handed out for each worker: one is computed while the next waits

Arrays = Mapping[str, np.ndarray]
P = TypeVar("P")


class WorkersError(ValueError):
    """There are no such workers; says what to do."""


class Workers(Protocol):
    """Computes a function of each part."""

    def map(self, function: Callable[[P], Arrays], parts: Sequence[P]) -> Iterator[Arrays]:
        """The results in the order of the parts. Function and parts are pickled where the work is done elsewhere."""
        ...


def single_threaded() -> Any:
    """A context in which BLAS has one thread: how many there are changes the last digits of a sum."""
    return _threads().limit(limits=1, user_api="blas")


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def alone(function: Callable[[P], Arrays], part: P) -> Arrays:
    """The function of one part, by one thread."""
    with single_threaded():
        return function(part)


class Here:
    """This process, one part after the other."""

    def map(self, function: Callable[[P], Arrays], parts: Sequence[P]) -> Iterator[Arrays]:
        return (alone(function, part) for part in parts)


HERE = Here()


class Processes:
    """Processes on this machine; they share large arrays as files in memory."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs

    def map(self, function: Callable[[P], Arrays], parts: Sequence[P]) -> Iterator[Arrays]:
        pool = joblib.Parallel(
            self._jobs, return_as="generator", batch_size=1, pre_dispatch=f"{UNDER_WAY} * n_jobs", max_nbytes="1M"
        )
        results: Iterator[Arrays] = pool(joblib.delayed(alone)(function, part) for part in parts)
        return results


class RayWorkers:
    """The workers of a Ray cluster. Function and large arrays are sent once to each machine."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._alone = ray.remote(num_cpus=1, max_retries=3)(alone)

    def map(self, function: Callable[[P], Arrays], parts: Sequence[P]) -> Iterator[Arrays]:
        sent = self._ray.put(function)
        most = UNDER_WAY * max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
        waiting: deque[Any] = deque()
        for part in parts:
            waiting.append(self._alone.remote(sent, part))
            if len(waiting) == most:
                yield self._ray.get(waiting.popleft())
        while waiting:
            yield self._ray.get(waiting.popleft())


@contextmanager
def opened(jobs: int = 1, ray: str | None = None) -> Iterator[Workers]:
    """Workers for as long as they are needed; `ray` is an address, or `auto` for the cluster of this machine.

    Where none runs, `auto` starts one on this machine, with `jobs` workers.

    Raises:
        WorkersError: Ray is not installed, or no cluster answers at the address.
    """
    if ray is None:
        yield HERE if jobs == 1 else Processes(jobs)
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
        except Exception as failed:  # Ray raises no narrower one where a process of its own does not start
            raise WorkersError(f"--ray auto: Ray did not start on this machine ({failed})") from failed
