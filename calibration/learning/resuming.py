"""Results of parts are kept in a folder, so that learning that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from calibration.workers import Arrays, P, Workers
from router.policy import features

CODE = (Path(__file__).parents[1], Path(features.__file__).parent)  # what the results are computed by


class Resumable:
    """Workers whose results are written down, each as one file that is there whole or not at all.

    The n-th call of `map` gets the results of the n-th call before, so the same work has to be done in the same order;
    `key` names that work.
    """

    def __init__(self, workers: Workers, folder: Path, key: str) -> None:
        self._workers = workers
        self._folder = folder / key
        self._calls = itertools.count()
        for other in folder.glob("*"):  # of other outcomes or other code
            if other != self._folder:
                shutil.rmtree(other, ignore_errors=True)

    def map(self, function: Callable[[P], Arrays], parts: Sequence[P]) -> Iterator[Arrays]:
        folder = self._folder / f"{next(self._calls):04d}"
        folder.mkdir(parents=True, exist_ok=True)
        return self._map(folder, function, parts)

    def _map(self, folder: Path, function: Callable[[P], Arrays], parts: Sequence[P]) -> Iterator[Arrays]:
        files = [folder / f"{number:06d}.npz" for number in range(len(parts))]
        there = [file.exists() for file in files]
        missing = [part for part, is_there in zip(parts, there, strict=True) if not is_there]
        computed = iter(self._workers.map(function, missing))
        for file, is_there in zip(files, there, strict=True):
            if is_there:
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


def key_of(values: Iterable[bytes]) -> str:
    """A name for work on these values by this code: changed code does not go on with results of the old."""
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    for value in values:
        digest.update(hashlib.sha256(value).digest())
    return digest.hexdigest()[:24]
