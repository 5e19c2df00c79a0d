"""Stored results of parts, so that learning resumes after an interruption."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from calibration.workers import Arrays, P, Workers
from router.policy import features

CODE_FOLDERS = (Path(__file__).parents[1], Path(features.__file__).parent)  # of the code that computes the results


class ResumableWorkers:
    """Workers that store each result in a file, which is replaced atomically.

    The n-th call of `map` returns the stored results of the n-th call of the interrupted run. So a run with the same
    `key` must make the same calls in the same order.
    """

    def __init__(self, workers: Workers, folder: Path, key: str) -> None:
        self._workers = workers
        self._folder = folder / key
        self._calls = itertools.count()
        for other in folder.glob("*"):  # from other outcomes or other code
            if other != self._folder:
                shutil.rmtree(other, ignore_errors=True)

    def map(self, function: Callable[[P], Arrays], parts: Sequence[P]) -> Iterator[Arrays]:
        folder = self._folder / f"{next(self._calls):04d}"
        folder.mkdir(parents=True, exist_ok=True)
        return self._map(folder, function, parts)

    def _map(self, folder: Path, function: Callable[[P], Arrays], parts: Sequence[P]) -> Iterator[Arrays]:
        files = [folder / f"{number:06d}.npz" for number in range(len(parts))]
        stored = [file.exists() for file in files]
        missing = [part for part, is_stored in zip(parts, stored, strict=True) if not is_stored]
        computed = iter(self._workers.map(function, missing))
        for file, is_stored in zip(files, stored, strict=True):
            if is_stored:
                with np.load(file, allow_pickle=False) as arrays:
                    yield dict(arrays)
            else:
                result = next(computed)
                _write(file, result)
                yield result


def _write(file: Path, arrays: Arrays) -> None:
    partial = file.with_suffix(".partial")
    with partial.open("wb") as out:
        np.savez(out, **arrays)  # type: ignore[arg-type]
    partial.replace(file)


def work_key(values: Iterable[bytes]) -> str:
    """A key for work on these values with this code, so that changed code does not use old results."""
    digest = hashlib.sha256()
    for folder in CODE_FOLDERS:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    for value in values:
        digest.update(hashlib.sha256(value).digest())
    return digest.hexdigest()[:24]
