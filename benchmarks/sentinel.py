"""Does the sentinel notice, how soon, and how often for nothing? Simulated years of recorded outcomes.

    python benchmarks/sentinel.py test.jsonl.gz --years 200

Requests of 40 types are drawn from the recorded outcomes of a file, as the policy decides on them: each predicted type
with enough answers of the cheap model is drawn from under several names. Looks are taken after every request, which is
more often than daily.

1. False alarms: years in which nothing changes. Once as recorded, for the types that keep their floor; once with every
   type moved to exactly its floor, where a false alarm is likeliest. The share of years with any alarm is at most 5 %.
2. Noticed: in each year the cheap model of one type becomes 10 points worse at a random moment. The median number of
   judged pairs from then on is at most what the theory gives (`theory`), and no other type is touched. Types that
   still keep their floor then, or nearly, have nothing to notice and are not simulated.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    def quality_kept(self) -> float:
        """The share of the strong model's quality that the router's answers keep."""
        return float(np.where(self.by_cheap > 0, self.cheap, self.strong).sum() / self.strong.sum())

    def draw(
        self, n: int, rng: np.random.Generator, flip_probability: float = 0.0, changed_at: int = 0
    ) -> Contributions:
        """`n` requests by chance; from `changed_at` on a right answer of the cheap model is wrong as often as `worse`.

        A negative `worse` makes wrong ones right.
        """
        rows = rng.integers(0, len(self.cheap), n)
        by_cheap, cheap, strong = self.by_cheap[rows] > 0, self.cheap[rows].copy(), self.strong[rows]
        is_flipped = (rng.random(n) < abs(flip_probability)) & (np.arange(n) >= changed_at)
        cheap[is_flipped] = 0.0 if flip_probability > 0 else 1.0
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
        cheap_share = float(self.by_cheap.mean())
        mean = cheap_share * float((cheap - floor * strong).mean()) + (1 - cheap_share) * (1 - floor) * float(
            strong.mean()
        )
        return (
            mean / (cheap_share * float(cheap.mean())) if mean > 0 else mean / (cheap_share * float(1 - cheap.mean()))
        )


def pools(path: Path, policy: Policy) -> list[Pool]:
    """The predicted types of a file of outcomes that the cheap model answers often enough."""
    models = [model.name for model in policy.rules.models]
    rows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for outcome in read_outcomes([path], models):
        features = read_question(outcome.messages, outcome.tools)
        decision = decide(policy.rules, features, predict(policy.predictor, features), policy.default_target)
        scores = [outcome.results[model].score for model in (models[0], models[-1])]
        rows[decision.question_type].append((float(decision.model != models[-1]), *scores))
    pool_list = [Pool(name, *np.array(columns).T) for name, columns in sorted(rows.items())]
    return [pool for pool in pool_list if pool.by_cheap.sum() >= LEAST_PAIRS]


def theory(pool: Pool, flip_probability: float, floor: float, changed_at: int) -> float:
    """Judged pairs until a change is noticed, by the growth rate of the best bet; infinite where the floor is kept.

    The evidence that is needed is that of one of 40 types, with the share of the error that the start after the change
    has, and of the fractions. A start is at most `CHANGE_POINT_INTERVAL` requests away.
    """
    by_cheap = pool.by_cheap > 0
    mean = float(pool.strong[by_cheap].mean())  # what stands for the score of a strong model that answered itself
    strong = np.where(by_cheap, pool.strong, mean)
    cheap = [np.where(by_cheap, scores, mean) for scores in (pool.cheap, np.zeros(len(pool.cheap)))]
    ratios = np.concatenate([Contributions(scores, strong).ratios_of_at_least(floor) for scores in cheap])
    weights = np.repeat([1 - flip_probability, flip_probability], len(pool.cheap))
    rate = betting.growth_rate(ratios, weights)
    if weights @ ratios <= weights.sum() or rate <= 0:
        return math.inf
    barrier = log_evidence_threshold(TYPES) - betting.log_error_share(changed_at) + math.log(len(betting.FRACTIONS))
    return (barrier / rate + betting.CHANGE_POINT_INTERVAL) * float(pool.by_cheap.mean())


def false_alarms(pool_list: Sequence[Pool], floor: float, years: int, n: int, seed: int, at_floor: bool) -> int:
    """In how many years any of 40 types is called drifted, though none keeps less than its floor."""
    rng, alarmed = np.random.default_rng(seed), 0
    keeping = [pool for pool in pool_list if at_floor or pool.flips_to(floor) >= 0]
    for _ in range(years):
        alarmed += any(
            betting.first_crossing(
                pool.draw(n, rng, pool.flips_to(floor) if at_floor else 0.0).ratios_of_at_least(floor),
                log_evidence_threshold(TYPES),
            )
            is not None
            for pool in (keeping[number % len(keeping)] for number in range(TYPES))
        )
    return alarmed


def measure_detection(pool: Pool, floor: float, years: int, n: int, seed: int) -> tuple[list[float], list[float], int]:
    """Judged pairs from a change until it is noticed (infinite: never), what theory gives, and alarms before it."""
    rng = np.random.default_rng(seed)
    flip_probability = pool.flips(POINTS)
    delays, expected, early = [], [], 0
    for _ in range(years):
        change = int(rng.integers(0, n))
        ratios = pool.draw(change + LONGEST_YEARS * n, rng, flip_probability, change).ratios_of_at_least(floor)
        reached = betting.first_crossing(ratios, log_evidence_threshold(TYPES))
        if reached is not None and reached <= change:
            early += 1
            continue
        delays.append(math.inf if reached is None else pool.pairs_in(reached - change))
        expected.append(theory(pool, flip_probability, floor, change))
    return delays, expected, early


def format_number(value: float) -> str:
    """A number of pairs."""
    return "never" if math.isinf(value) else f"{value:,.0f}"


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> Mapping[str, float]:
    """Print the table of docs/explanations/sentinel.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--years", type=int, default=100)
    parser.add_argument("--a-day", type=int, default=5, help="sampled requests of each type")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-noticed", action="store_true", help="leave the false alarms out")
    parsed = parser.parse_args(arguments)
    policy = read_policy(SHIPPED)
    floor, n = policy.default_target - TYPE_MARGIN, 365 * parsed.a_day
    pool_list = pools(parsed.outcomes, policy)
    alarms = {}
    for name, at_floor in () if parsed.only_noticed else (("as recorded", False), ("exactly at the floor", True)):
        alarms[name] = false_alarms(pool_list, floor, parsed.years, n, parsed.seed, at_floor)
        print(f"years with a false alarm, {name}: {alarms[name]} of {parsed.years}", flush=True)
    print("| type | kept | kept, 10 points worse | theory, pairs | median, pairs | noticed | early alarms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for pool in pool_list:
        quality_after = pool.quality_kept - POINTS * float(pool.by_cheap.mean()) / float(pool.strong.mean())
        if theory(pool, pool.flips(POINTS), floor, 0) > pool.pairs_in(LONGEST_YEARS * n):
            print(f"| {pool.name} | {pool.quality_kept:.3f} | {quality_after:.3f} | never | - | - | - |", flush=True)
            continue
        pairs, expected, early = measure_detection(pool, floor, parsed.years, n, parsed.seed + 1)
        detected = sum(not math.isinf(delay) for delay in pairs)
        middle = statistics.median_low(pairs) if pairs else math.nan
        by_theory = format_number(statistics.median(expected)) if expected else "-"
        row = (
            pool.name,
            f"{pool.quality_kept:.3f}",
            f"{quality_after:.3f}",
            by_theory,
            format_number(middle),
            f"{detected} of {len(pairs)}",
            early,
        )
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    return {name: count / parsed.years for name, count in alarms.items()}


if __name__ == "__main__":
    main()
