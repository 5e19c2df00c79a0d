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


class _TimeOverError(BaseException):
    """Raised when the time is over; hypothesis does not treat it as a failure."""


@dataclass
class Trial:
    """The result of fuzzing a target."""

    tried: int = 0
    seconds: float = 0.0
    failing: bytes | None = None  # the smallest input that failed
    error: str = ""  # its traceback


class _CountingCheck:
    """A target's check, with a count, a clock, and the last input that failed."""

    def __init__(self, check: Callable[[bytes], None], trial: Trial, deadline: float) -> None:
        self._check = check
        self.trial = trial
        self._deadline = deadline

    def __call__(self, data: bytes) -> None:
        if time.monotonic() > self._deadline:
            raise _TimeOverError
        trial = self.trial
        trial.tried += trial.failing is None  # shrinking a failing input is not counted
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


def fuzz(target: Target, *, seconds: float = 3600.0, max_inputs: int | None = None, first_seed: int = 0) -> Trial:
    """Try inputs for `seconds`, or `max_inputs` of them; the same seed generates the same inputs."""
    trial, start = Trial(), time.monotonic()
    counting_check = _CountingCheck(target.check, trial, start + seconds)
    try:
        for number in range(first_seed, sys.maxsize):
            _round(target, counting_check, min(ROUND, (max_inputs or sys.maxsize) - trial.tried), number)
            if trial.failing is not None or (max_inputs is not None and trial.tried >= max_inputs):
                break
    except _TimeOverError:
        pass
    trial.seconds = time.monotonic() - start
    return trial


def _round(target: Target, counting_check: _CountingCheck, max_inputs: int, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=max_inputs,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(target.inputs)
    def check(data: bytes) -> None:
        counting_check(data)

    try:
        check()
    except Exception:
        if counting_check.trial.failing is None:
            raise  # a fault of the fuzzer


def stored_inputs(name: str) -> list[Path]:
    """The stored inputs of a target."""
    return sorted(path for path in (SEEDS / name).glob("*") if path.is_file())


def store_input(name: str, data: bytes) -> Path:
    """Store a failing input; return its path."""
    path = SEEDS / name / f"failed-{hashlib.sha256(data).hexdigest()[:12]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _fuzz_and_report(name: str, seconds: float, first_seed: int) -> bool:
    """Fuzz a target by its name and print the result; return whether it passed."""
    with openings()[name]() as target:
        trial = fuzz(target, seconds=seconds, first_seed=first_seed)
    verdict = "ok" if trial.failing is None else "FAILED"
    sys.stdout.write(f"{name:10} {trial.tried:8,} inputs {trial.seconds:7.1f} s  {verdict}\n")
    if trial.failing is not None:
        shown_bytes = trial.failing[:SHOWN_BYTES]
        sys.stdout.write(
            f"{trial.error}\n{len(trial.failing)} bytes: {shown_bytes!r}\nkept as {store_input(name, trial.failing)}\n"
        )
    sys.stdout.flush()
    return trial.failing is None


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the named targets, or all."""
    names = list(openings())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "targets", nargs="*", metavar="target", help=f"any of {', '.join(names)}; all where none is named"
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="of all targets together (300)")
    parser.add_argument("--seed", type=int, help="makes the same inputs again; else the seed is drawn, and told")
    parsed = parser.parse_args(arguments)
    if unknown := sorted(set(parsed.targets) - set(names)):
        parser.error(f"no such target: {', '.join(unknown)}")
    chosen_names = parsed.targets or names
    first_seed = parsed.seed if parsed.seed is not None else random.randrange(10**9)
    sys.stdout.write(f"seed {first_seed}\n")
    passed = [_fuzz_and_report(name, parsed.seconds / len(chosen_names), first_seed) for name in chosen_names]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
