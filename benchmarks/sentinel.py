"""Does the sentinel notice, how soon, and how often for nothing? Simulated years of recorded outcomes.

    python benchmarks/sentinel.py test.jsonl.gz --years 200

Requests of 40 types are drawn from the recorded outcomes of a file, as the policy decides on them: each predicted type
with enough answers of the cheap model is drawn from under several names. Looks are taken after every request, which is
more often than daily.

1. False alarms: years in which nothing changes. Once as recorded, for the types that keep their floor; once with every
   type moved to exactly its floor, where a false alarm is likeliest. The share of years with any alarm is at most 5 %.
2. Noticed: in each year the cheap model of one type becomes 10 points worse at a random moment. The median number of
   judged pairs from then on is at most what the theory gives (`theory`). Types that still keep their floor then, or
   nearly, have nothing to notice and are not simulated.
3. Other types: in each run the cheap model of one type of 40 becomes 10 points worse at a random moment. The share of
   runs in which any of the 39 others is marked, from the start until the change is noticed and at least for the year.
   The others are as recorded and keep their floor, or are moved to exactly their floor, as above.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from calibration.learning.certificate import TYPE_MARGIN
from calibration.outcomes import read_outcomes
from calibration.policies import read_policy
from calibration.sentinel import betting
from calibration.sentinel.kept_quality import Contributions, log_evidence_threshold
from router.policy.decision import decide
from router.policy.distribution import SHIPPED
from router.policy.document import Policy
from router.policy.features import read_question
from router.policy.prediction import predict
from router.policy.vocabulary import Floats

TYPES = 40
LEAST_PAIRS = 20  # recorded answers of the cheap model, below which a type is not drawn from
POINTS = 0.10
LONGEST_YEARS = 6  # after which a change counts as never noticed


@dataclass(frozen=True)
class Pool:
    """Recorded requests of one predicted type, (n,) each."""

    name: str
    by_cheap: Floats
    cheap: Floats
    strong: Floats

    @property
    def kept(self) -> float:
        """The share of the strong model's quality that the router's answers keep."""
        return float(np.where(self.by_cheap > 0, self.cheap, self.strong).sum() / self.strong.sum())

    def drawn(self, n: int, rng: np.random.Generator, worse: float = 0.0, changed_at: int = 0) -> Contributions:
        """`n` requests by chance; from `changed_at` on a right answer of the cheap model is wrong as often as `worse`.

        A negative `worse` makes wrong ones right.
        """
        rows = rng.integers(0, len(self.cheap), n)
        by_cheap, cheap, strong = self.by_cheap[rows] > 0, self.cheap[rows].copy(), self.strong[rows]
        hit = (rng.random(n) < abs(worse)) & (np.arange(n) >= changed_at)
        cheap[hit] = 0.0 if worse > 0 else 1.0
        pairs = np.cumsum(by_cheap)
        mean = np.divide(np.cumsum(strong * by_cheap), pairs, out=np.zeros(n), where=pairs > 0)
        return Contributions(np.where(by_cheap, cheap, mean), np.where(by_cheap, strong, mean))

    def pairs_in(self, n: int) -> int:
        """How many of `n` requests the cheap model answers."""
        return round(n * float(self.by_cheap.mean()))

    def flips(self, points: float) -> float:
        """How often a right answer of the cheap model has to be wrong for it to be `points` worse."""
        return points / float(self.cheap[self.by_cheap > 0].mean())

    def flips_to(self, floor: float) -> float:
        """As `flips`, for the type to keep exactly the floor as it is watched; negative where it keeps less."""
        cheap, strong = self.cheap[self.by_cheap > 0], self.strong[self.by_cheap > 0]
        p = float(self.by_cheap.mean())
        mean = p * float((cheap - floor * strong).mean()) + (1 - p) * (1 - floor) * float(strong.mean())
        return mean / (p * float(cheap.mean())) if mean > 0 else mean / (p * float(1 - cheap.mean()))


def pools(path: Path, policy: Policy) -> list[Pool]:
    """The predicted types of a file of outcomes that the cheap model answers often enough."""
    models = [model.name for model in policy.rules.models]
    rows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for outcome in read_outcomes([path], models):
        features = read_question(outcome.messages, outcome.tools)
        found = decide(policy.rules, features, predict(policy.predictor, features), policy.default_target)
        scores = [outcome.results[model].score for model in (models[0], models[-1])]
        rows[found.question_type].append((float(found.model != models[-1]), *scores))
    made = [Pool(name, *np.array(each).T) for name, each in sorted(rows.items())]
    return [pool for pool in made if pool.by_cheap.sum() >= LEAST_PAIRS]


def theory(pool: Pool, worse: float, floor: float, changed_at: int) -> float:
    """Judged pairs until a change is noticed, by the growth rate of the best bet; infinite where the floor is kept.

    The evidence that is needed is that of one of 40 types, with the share of the error that the start after the change
    has, and of the fractions. A start is at most `CHANGE_POINT_INTERVAL` requests away.
    """
    by_cheap = pool.by_cheap > 0
    mean = float(pool.strong[by_cheap].mean())  # what stands for the score of a strong model that answered itself
    strong = np.where(by_cheap, pool.strong, mean)
    cheap = [np.where(by_cheap, each, mean) for each in (pool.cheap, np.zeros(len(pool.cheap)))]
    ratios = np.concatenate([Contributions(each, strong).ratios_of_at_least(floor) for each in cheap])
    weights = np.repeat([1 - worse, worse], len(pool.cheap))
    rate = betting.growth_rate(ratios, weights)
    if weights @ ratios <= weights.sum() or rate <= 0:
        return math.inf
    barrier = log_evidence_threshold(TYPES) - betting.log_error_share(changed_at) + math.log(len(betting.FRACTIONS))
    return (barrier / rate + betting.CHANGE_POINT_INTERVAL) * float(pool.by_cheap.mean())


def marked(pool: Pool, floor: float, n: int, rng: np.random.Generator, at_floor: bool) -> bool:
    """Whether a type is called drifted within `n` requests, though nothing changes."""
    ratios = pool.drawn(n, rng, pool.flips_to(floor) if at_floor else 0.0).ratios_of_at_least(floor)
    return betting.first_crossing(ratios, log_evidence_threshold(TYPES)) is not None


def keeping(found: Sequence[Pool], floor: float, at_floor: bool) -> list[Pool]:
    """The pools that keep their floor, as recorded or moved to it."""
    return [pool for pool in found if at_floor or pool.flips_to(floor) >= 0]


def false_alarms(found: Sequence[Pool], floor: float, years: int, n: int, seed: int, at_floor: bool) -> int:
    """In how many years any of 40 types is called drifted, though none keeps less than its floor."""
    rng, drawn = np.random.default_rng(seed), keeping(found, floor, at_floor)
    return sum(
        any(marked(drawn[number % len(drawn)], floor, n, rng, at_floor) for number in range(TYPES))
        for _ in range(years)
    )


def is_noticeable(pool: Pool, floor: float, n: int) -> bool:
    """Whether theory expects that a type that becomes worse is noticed within `LONGEST_YEARS` of `n` requests."""
    return theory(pool, pool.flips(POINTS), floor, 0) <= pool.pairs_in(LONGEST_YEARS * n)


def others_marked(
    found: Sequence[Pool], floor: float, runs: int, n: int, seed: int, at_floor: bool
) -> tuple[int, int, int]:
    """Runs in which one type of 40 becomes worse: how many, those in which it is noticed, and another is marked.

    Each type that can be noticed and keeps its floor becomes worse in as many runs, so `runs` may be rounded up.
    """
    rng = np.random.default_rng(seed)
    drawn = keeping(found, floor, at_floor)
    becoming_worse = [pool for pool in keeping(found, floor, at_floor=False) if is_noticeable(pool, floor, n)]
    total = math.ceil(runs / len(becoming_worse)) * len(becoming_worse)
    seen = touched = 0
    for run in range(total):
        pool = becoming_worse[run % len(becoming_worse)]
        at = int(rng.integers(0, n))
        ratios = pool.drawn(at + LONGEST_YEARS * n, rng, pool.flips(POINTS), at).ratios_of_at_least(floor)
        reached = betting.first_crossing(ratios, log_evidence_threshold(TYPES))
        seen += reached is not None and reached > at
        watched = max(n, len(ratios) if reached is None else reached)
        touched += any(
            marked(drawn[(run + number) % len(drawn)], floor, watched, rng, at_floor) for number in range(1, TYPES)
        )
    return total, seen, touched


def noticed(pool: Pool, floor: float, years: int, n: int, seed: int) -> tuple[list[float], list[float], int]:
    """Judged pairs from a change until it is noticed (infinite: never), what theory gives, and alarms before it."""
    rng = np.random.default_rng(seed)
    worse = pool.flips(POINTS)
    found, expected, early = [], [], 0
    for _ in range(years):
        at = int(rng.integers(0, n))
        ratios = pool.drawn(at + LONGEST_YEARS * n, rng, worse, at).ratios_of_at_least(floor)
        reached = betting.first_crossing(ratios, log_evidence_threshold(TYPES))
        if reached is not None and reached <= at:
            early += 1
            continue
        found.append(math.inf if reached is None else pool.pairs_in(reached - at))
        expected.append(theory(pool, worse, floor, at))
    return found, expected, early


def told(value: float) -> str:
    """A number of pairs."""
    return "never" if math.isinf(value) else f"{value:,.0f}"


def interval(count: int, total: int) -> str:
    """A share with its exact 95 % interval (Clopper and Pearson 1934)."""
    low, high = binomtest(count, total).proportion_ci(0.95, method="exact")
    return f"{count} of {total} ({count / total:.1%}, 95 % interval {low:.1%} to {high:.1%})"


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> None:
    """Print the figures of docs/explanations/sentinel.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--years", type=int, default=100)
    parser.add_argument("--a-day", type=int, default=5, help="sampled requests of each type")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("alarms", "others", "noticed"), help="one of the three parts")
    given = parser.parse_args(arguments)
    policy = read_policy(SHIPPED)
    floor, n = policy.default_target - TYPE_MARGIN, 365 * given.a_day
    found = pools(given.outcomes, policy)
    for name, at_floor in (("as recorded", False), ("exactly at the floor", True)):
        if given.only in (None, "alarms"):
            count = false_alarms(found, floor, given.years, n, given.seed, at_floor)
            print(f"years with a false alarm, {name}: {interval(count, given.years)}", flush=True)
        if given.only in (None, "others"):
            runs, seen, count = others_marked(found, floor, given.years, n, given.seed + 2, at_floor)
            told_others = f"runs in which another type is marked, the others {name}: {interval(count, runs)}"
            print(f"{told_others}; the change is noticed in {seen}", flush=True)
    if given.only in (None, "noticed"):
        print_noticed(found, floor, given.years, n, given.seed + 1)


def print_noticed(found: Sequence[Pool], floor: float, years: int, n: int, seed: int) -> None:
    """Print when a change of each type is noticed, as a table."""
    print("| type | kept | kept, 10 points worse | theory, pairs | median, pairs | noticed | early alarms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for pool in found:
        after = pool.kept - POINTS * float(pool.by_cheap.mean()) / float(pool.strong.mean())
        if not is_noticeable(pool, floor, n):
            print(f"| {pool.name} | {pool.kept:.3f} | {after:.3f} | never | - | - | - |", flush=True)
            continue
        pairs, expected, early = noticed(pool, floor, years, n, seed)
        seen = sum(not math.isinf(each) for each in pairs)
        middle = statistics.median_low(pairs) if pairs else math.nan
        by_theory = told(statistics.median(expected)) if expected else "-"
        row = (pool.name, f"{pool.kept:.3f}", f"{after:.3f}", by_theory, told(middle), f"{seen} of {len(pairs)}", early)
        print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
