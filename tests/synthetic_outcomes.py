"""Synthetic outcomes with a known quality of each model on each question type."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from calibration.learning.learning import learn
from calibration.outcomes import Outcome, Result
from calibration.policies import load_prices, models_named
from router.policy.document import Policy
from router.policy.rules import Promise

WORDS = {
    "sums/easy": "apples pears coins add buys sells gives total left basket market price each",
    "law/clauses": "contract clause liability breach party damages notice tenant landlord statute court appeal",
    "code/tracing": "loop index array returns prints variable function increments stack queue recursion value",
    "facts/capitals": "capital river mountain country border largest city continent ocean island valley lake",
}
TRUTH: Mapping[str, tuple[float, float]] = {  # chance that the cheap and the strong model are correct
    "sums/easy": (0.96, 0.97),
    "law/clauses": (0.55, 0.90),
    "code/tracing": (0.70, 0.92),
    "facts/capitals": (0.90, 0.91),
}


def synthetic_outcomes(
    count: int,
    seed: int = 0,
    truth: Mapping[str, tuple[float, ...]] = TRUTH,
    models: tuple[str, ...] = ("gpt-4o-mini", "gpt-4o"),
) -> list[Outcome]:
    """`count` outcomes over the question types of `truth`; the questions are words of their type."""
    rng = np.random.default_rng(seed)
    question_types = list(truth)
    outcomes = []
    for number in range(count):
        question_type = question_types[number % len(question_types)]
        words = " ".join(rng.choice(WORDS[question_type].split(), size=rng.integers(8, 30)))
        results = {
            model: Result(float(rng.random() < chance), None, 40 + len(words) // 4, int(rng.integers(20, 200)))
            for model, chance in zip(models, truth[question_type], strict=True)
        }
        message = {"role": "user", "content": f"Question {rng.integers(10**6)}: {words}?"}
        outcomes.append(Outcome(f"made-{seed}-{number}", [message], results, question_type))
    return outcomes


def expected_policy() -> Policy:
    """A policy whose strictest routing target is kept in expectation, without a guarantee."""
    models = models_named(("gpt-4o-mini", "gpt-4o"), load_prices())
    return learn(synthetic_outcomes(150), models, 3, {}, promise=Promise.EXPECTED).policy
