"""Fuzzes what reads the bytes of others: `make fuzz`.

    PYTHONPATH=tests python -m fuzz.run [--seconds 300] [clients upstreams events bodies policies tables]

The targets share the seconds. An input that fails is printed and kept in `seeds/`, where every test run tries it from
then on; the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from fuzz.targets import Target, openings

SEEDS = Path(__file__).parent / "seeds"
ROUND = 200  # inputs between two seeds of hypothesis
SHRINK_SECONDS = 20.0  # for making a failing input smaller
SLOWEST_SECONDS = 10.0  # that one input may take
SHOWN_BYTES = 2000


class _EnoughError(BaseException):
    """The time is over; hypothesis lets it pass, since it is no failure of a test."""


@dataclass
class Trial:
    """What came of fuzzing a target."""

    tried: int = 0
    seconds: float = 0.0
    failing: bytes | None = None  # the smallest input that failed
    error: str = ""  # its traceback


class _Watched:
    """A target's check, with a count, a clock, and the last input that failed."""

    def __init__(self, check: Callable[[bytes], None], trial: Trial, deadline: float) -> None:
        self._check = check
        self.trial = trial
        self._deadline = deadline

    def __call__(self, data: bytes) -> None:
        if time.monotonic() > self._deadline:
            raise _EnoughError
        trial = self.trial
        trial.tried += trial.failing is None  # what makes a failing input smaller is not counted
        start = time.monotonic()
        try:
            self._check(data)
            seconds = time.monotonic() - start
            assert seconds < SLOWEST_SECONDS, f"it took {seconds:.1f} s"
        except Exception:
            if trial.failing is None:
                self._deadline = time.monotonic() + SHRINK_SECONDS
            if trial.failing is None or len(data) <= len(trial.failing):
                trial.failing, trial.error = data, traceback.format_exc()
            raise


def fuzz(target: Target, *, seconds: float = 3600.0, most: int | None = None, first_seed: int = 0) -> Trial:
    """Try inputs for so many seconds, or `most` of them; the same seed makes the same inputs."""
    trial, began = Trial(), time.monotonic()
    watched = _Watched(target.check, trial, began + seconds)
    try:
        for number in range(first_seed, sys.maxsize):
            _round(target, watched, min(ROUND, (most or sys.maxsize) - trial.tried), number)
            if trial.failing is not None or (most is not None and trial.tried >= most):
                break
    except _EnoughError:
        pass
    trial.seconds = time.monotonic() - began
    return trial


def _round(target: Target, watched: _Watched, most: int, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=most,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(target.inputs)
    def check(data: bytes) -> None:
        watched(data)

    try:
        check()
    except Exception:
        if watched.trial.failing is None:
            raise  # a fault of the fuzzer's


def kept(name: str) -> list[Path]:
    """The inputs that are kept for a target."""
    return sorted(path for path in (SEEDS / name).glob("*") if path.is_file())


def keep(name: str, data: bytes) -> Path:
    """Keep an input that failed."""
    path = SEEDS / name / f"failed-{hashlib.sha256(data).hexdigest()[:12]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _reported(name: str, seconds: float, first_seed: int) -> bool:
    """Fuzz a target by its name and tell what came of it; whether nothing failed."""
    with openings()[name]() as target:
        trial = fuzz(target, seconds=seconds, first_seed=first_seed)
    verdict = "ok" if trial.failing is None else "FAILED"
    sys.stdout.write(f"{name:10} {trial.tried:8,} inputs {trial.seconds:7.1f} s  {verdict}\n")
    if trial.failing is not None:
        shown = trial.failing[:SHOWN_BYTES]
        sys.stdout.write(f"{trial.error}\n{len(trial.failing)} bytes: {shown!r}\nkept as {keep(name, trial.failing)}\n")
    sys.stdout.flush()
    return trial.failing is None


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the targets that are named, or all."""
    names = list(openings())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "targets", nargs="*", metavar="target", help=f"any of {', '.join(names)}; all where none is named"
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="of all targets together (300)")
    parser.add_argument("--seed", type=int, help="makes the same inputs again; else the seed is drawn, and told")
    given_ = parser.parse_args(arguments)
    if unknown := sorted(set(given_.targets) - set(names)):
        parser.error(f"no such target: {', '.join(unknown)}")
    chosen = given_.targets or names
    first_seed = given_.seed if given_.seed is not None else random.randrange(10**9)
    sys.stdout.write(f"seed {first_seed}\n")
    right = [_reported(name, given_.seconds / len(chosen), first_seed) for name in chosen]
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
