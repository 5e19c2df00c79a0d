"""Fuzzes what reads bytes of others: `make fuzz`.

    python tests/fuzz/run.py [--seconds 300] [clients upstreams events bodies policies questions]

The seconds are shared by the targets. A failing input is printed, kept in tests/fuzz/seeds, and tried by every test run
from then on. The exit code is 1 where there was one.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]
import mutation
import texts
import wire

SEEDS = HERE / "seeds"
ROUND = 50  # inputs between two looks at the clock
Check = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """What is fuzzed: valid examples, and a check that raises on a fault."""

    examples: Sequence[bytes]
    check: Check


@contextmanager
def opened(name: str) -> Iterator[Target]:
    """A target, for as long as it is needed."""
    if name in ("clients", "upstreams"):
        running = wire.Clients() if name == "clients" else wire.Upstreams()
        try:
            yield Target(running.examples, running.check)
        finally:
            running.close()
    elif name == "policies":
        policies = texts.Policies()
        yield Target(policies.examples, policies.check)
    else:
        yield {
            "events": Target(texts.EVENTS, texts.check_events),
            "bodies": Target(texts.BODIES, texts.check_bodies),
            "questions": Target(texts.QUESTIONS, texts.check_questions),
        }[name]


NAMES = ("clients", "upstreams", "events", "bodies", "policies", "questions")


def tried(target: Target, count: int, number: int) -> bytes | None:
    """Try `count` inputs of the stream `number`; the smallest that fails, or None. Its error is raised from `fuzz`."""
    failing: list[bytes] = []

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(mutation.inputs(target.examples))
    def fuzz(data: bytes) -> None:
        try:
            target.check(data)
        except BaseException:
            failing.append(data)
            raise

    try:
        fuzz()
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return failing[-1]
    return None


def seeds(name: str) -> list[bytes]:
    """The inputs that are kept for a target."""
    return [path.read_bytes() for path in sorted((SEEDS / name).glob("*"))]


def keep(name: str, data: bytes) -> Path:
    """Keep an input, so that every test run tries it."""
    path = SEEDS / name / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def fuzzed(name: str, seconds: float) -> bool:
    """Fuzz one target for so long; whether nothing was found."""
    began, count = time.monotonic(), 0
    with opened(name) as target:
        while time.monotonic() - began < seconds:
            failing = tried(target, ROUND, int(began * 1000) + count)
            count += ROUND
            if failing is not None:
                print(f"{name}: FAILED after about {count} inputs: {failing[:300]!r}, kept in {keep(name, failing)}")
                return False
    print(f"{name}: {count:,} inputs in {time.monotonic() - began:.0f} s, none failed", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="target", help=f"any of {', '.join(NAMES)}; else all")
    parser.add_argument("--seconds", type=float, default=300.0)
    given_ = parser.parse_args()
    targets = given_.targets or NAMES
    if unknown := set(targets) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    return int([fuzzed(name, given_.seconds / len(targets)) for name in targets].count(False) > 0)


if __name__ == "__main__":
    sys.exit(main())
