"""Outcomes become a policy: fit on one part, certify on the other, and write down what is known of each type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from calibration.background import Background
from calibration.certificate import CONFIDENCE, TARGETS, Walk, threshold_grid
from calibration.duplicates import near_duplicate_groups
from calibration.examples import Examples, read_features, types_of
from calibration.outcomes import Outcome
from calibration.predictor import fit
from calibration.replay import replayed
from router.policy.decision import Evidence, Interval, Model, Rules
from router.policy.document import Policy
from router.policy.prediction import Floats

TEST_SHARE = 0.3  # of the questions, kept from the fit for the certificate
DEFAULT_TARGET = 0.97
LEAST_TYPE_PROBABILITY = 0.7  # below it what was measured of a type is not evidence of a question
NO_EVIDENCE_LIMIT = 0.1  # the same above this probability of types without evidence
NOVELTY_LIMIT = 0.95  # so that about 5 % of familiar questions are taken for novel
LEAST_GAP = 0.01  # a point of quality is less than two runs of one model differ by
MIN_EVIDENCE = 50  # outcomes below which nothing is claimed of a type: the interval of a difference is then 0.2 wide
MIN_QUESTIONS = 60


class LearningError(ValueError):
    """The outcomes cannot be learnt from."""


def learn(
    outcomes: Sequence[Outcome],
    models: Sequence[Model],
    seed: int,
    about: Mapping[str, Any],
    background: Background | None = None,
    targets: Sequence[float] = TARGETS,
) -> Policy:
    """Learn a policy for `models` (cheap to strong) from outcomes that have a result of each.

    `background` adds what is known beside the outcomes; without it, types that were not asked are not known.

    Raises:
        LearningError: there are too few questions to fit and to test on.
    """
    if len(outcomes) < MIN_QUESTIONS:
        raise LearningError(f"{len(outcomes)} questions are too few to learn from; at least {MIN_QUESTIONS} are needed")
    background = background or Background()
    outcomes = background.renamed(outcomes)
    names = [model.name for model in models]
    examples = examples_of(outcomes, names, set(background.examples.types))
    train, test = split(examples.groups, TEST_SHARE, seed)
    predictor = fit(examples.part(train), names, seed, background.examples).export()
    evidence = {**background.evidence, **measured_evidence(examples, names)}
    rules = rules_for(models, evidence)
    grid = threshold_grid(replayed([outcomes[i] for i in train], predictor, models).gaps_per_usd)
    tested = Walk(grid, rules, replayed([outcomes[i] for i in test], predictor, models), examples.groups[test])
    certified = tuple(tested.rule(target, seed) for target in targets)
    made = {
        **about,
        "questions": len(outcomes),
        "fitted_on": len(train),
        "certified_on": len(test),
        "confidence": CONFIDENCE,
        "seed": seed,
    }
    return Policy(replace(rules, targets=certified), predictor, DEFAULT_TARGET, made)


def rules_for(models: Sequence[Model], evidence: Mapping[str, Evidence]) -> Rules:
    """What is decided by before any target is certified."""
    return Rules(
        models=tuple(models),
        evidence=evidence,
        targets=(),
        least_gap=LEAST_GAP,
        least_type_probability=LEAST_TYPE_PROBABILITY,
        no_evidence_limit=NO_EVIDENCE_LIMIT,
        novelty_limit=NOVELTY_LIMIT,
    )


def examples_of(outcomes: Sequence[Outcome], models: Sequence[str], known_types: Collection[str] = ()) -> Examples:
    """The outcomes as the learner takes them."""
    results = [[outcome.results[model] for model in models] for outcome in outcomes]
    return Examples(
        features=read_features(outcomes),
        types=types_of(outcomes, known_types),
        scores=np.array([[r.score for r in row] for row in results]),
        lengths=np.array([[np.nan if r.output_tokens is None else r.output_tokens for r in row] for row in results]),
        groups=near_duplicate_groups([outcome.text for outcome in outcomes]),
    )


def split(groups: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to test on, about `share` of them; near-duplicates stay together."""
    names, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    taken = np.cumsum(sizes[order]) <= share * len(groups)
    is_test = np.isin(groups, names[order][taken])
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def measured_evidence(examples: Examples, models: Sequence[str]) -> dict[str, Evidence]:
    """What was measured of each type that has MIN_EVIDENCE outcomes."""
    evidence = {}
    for name, count in sorted(Counter(examples.types).items()):
        if count < MIN_EVIDENCE:
            continue
        rows = np.array([t == name for t in examples.types])
        scores, lengths = examples.scores[rows], examples.lengths[rows]
        written = {m: float(np.nanmean(v)) for m, v in zip(models, lengths.T, strict=True) if not np.isnan(v).all()}
        evidence[name] = Evidence(
            kind="measured",
            n=len(scores),
            quality={model: mean_interval(scores[:, m], 0.0, 1.0) for m, model in enumerate(models)},
            quality_difference=mean_interval(scores[:, 0] - scores[:, -1], -1.0, 1.0),
            output_tokens=written,
        )
    return evidence


def mean_interval(values: Floats, low: float, high: float, confidence: float = CONFIDENCE) -> Interval:
    """The mean of bounded values with its interval.

    Student's t on the values and one more at each bound, which keeps the interval honest where few values are all alike
    (the adjustment of Agresti and Coull 1998 for proportions).
    """
    padded = np.concatenate([values, [low, high]])
    half = float(stats.t.ppf((1 + confidence) / 2, len(padded) - 1) * padded.std(ddof=1) / np.sqrt(len(padded)))
    centre = float(padded.mean())
    mean = float(values.mean())
    return Interval(min(max(low, centre - half), mean), mean, max(min(high, centre + half), mean))
