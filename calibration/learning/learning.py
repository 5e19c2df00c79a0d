"""Outcomes become a policy: every question teaches and tests, and what is known of each type is written down."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.learning.certificate import CONFIDENCE, TARGETS, TYPE_MARGIN, USEFUL_SAVING, Walk, student
from calibration.learning.corpus import Questions, read_corpus
from calibration.learning.crossfit import cross_fit, seen_again
from calibration.learning.duplicates import near_duplicate_groups
from calibration.learning.examples import Examples, TypeExamples, read_features, types_of
from calibration.learning.predictor import fit
from calibration.learning.prior import Background
from calibration.learning.replay import Replay, replay_of
from calibration.learning.resuming import Resumable, key_of
from calibration.outcomes import Outcome
from calibration.workers import HERE, Workers, single_threaded
from router.policy.decision import Evidence, Interval, Model, Promise, Rule, Rules
from router.policy.document import Policy
from router.policy.vocabulary import Floats

DEFAULT_TARGET = 0.97
LEAST_TARGET = 0.9  # of the strong model's quality; keeping less is not called routing
CAUTION = 0.05  # of quality, by which predictions err that few questions taught: dear answers go cheap before doubtful
CAUTION_QUESTIONS = 640  # up to which it is that; it falls with the root of more
DOUBT_WEIGHT = 0.5  # of a standard deviation of the gap over the types that a question may be of
RISK_WEIGHT = 5.0  # over the root of n: of n questions, those on which the models differ widen what can be certified
LEAST_SAVING_SHARE = 0.5  # of the mean dollars that the strong model costs more: what a short answer saves at least
LEAST_TYPE_PROBABILITY = 0.3  # below it what was measured of a type is not evidence of a question
NO_EVIDENCE_LIMIT = 0.2  # the same above this probability of types without evidence
FAMILIAR_UNTIL = 0.75  # novelty from which on dollars count less
NOVELTY_LIMIT = 0.95  # so that about 5 % of familiar questions are taken for novel
PUBLISHED_TOLERANCE = 0.01  # a point of quality is less than two runs of one model differ by
MEASURED_SHARE = 0.015  # of the questions: with fewer outcomes a type was not asked for, and published results stand
MIN_QUESTIONS = 60
NO_MORE = TypeExamples()


class LearningError(ValueError):
    """The outcomes cannot be learnt from."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """A policy, and how it does on the questions that it was learnt from, each predicted without it."""

    policy: Policy
    replay: Replay
    known: Replay  # the same questions, predicted by what was learnt from all of them
    groups: np.ndarray  # (n,) near-duplicates share a number


def learn(
    outcomes: Sequence[Outcome],
    models: Sequence[Model],
    seed: int,
    about: Mapping[str, Any],
    background: Background | None = None,
    targets: Sequence[float] = TARGETS,
    confidence: float = CONFIDENCE,
    promise: Promise = Promise.CERTIFIED,
    type_margin: float = TYPE_MARGIN,
    workers: Workers = HERE,
    folder: Path | None = None,
) -> Learnt:
    """Learn a policy for `models` (cheap to strong) from outcomes that have a result of each.

    `background` adds what is known beside the outcomes; without it, types that were not asked are not known. The
    policy has the same bytes whoever the workers are. What they computed is kept in `folder` until all is learnt, so
    that the same call goes on where another was interrupted.

    Raises:
        LearningError: there are too few questions to learn from and to test on.
    """
    if len(outcomes) < MIN_QUESTIONS:
        raise LearningError(f"{len(outcomes)} questions are too few to learn from; at least {MIN_QUESTIONS} are needed")
    background = background or Background()
    names = [model.name for model in models]
    outcomes = background.renamed(outcomes)
    features = read_features(outcomes)
    if folder is not None:
        workers = Resumable(workers, folder, _key(outcomes, features, models, seed, background))
    with single_threaded():
        examples = examples_of(outcomes, names, background.examples, workers, features)
        crossed = cross_fit(examples, names, seed, workers)
        predictor = crossed.complete(fit(examples, names, workers))
        replay = replay_of(outcomes, features, crossed.predictions, models)
        measured = {
            name: known
            for name, known in measured_evidence(examples, names).items()
            if name not in background.evidence
            or known.n >= min(MEASURED_SHARE * len(outcomes), background.evidence[name].n)
        }
        rules = rules_for(models, {**background.evidence, **measured}, replay)
        again = seen_again(examples, predictor, workers)
        known = replay_of(outcomes, features, again, models)
        walk = Walk(rules, replay, known, examples.groups, confidence, type_margin)
        certified = tuple(walk.all_rules(targets, seed, promise))
    made = {
        **about,
        "questions": len(outcomes),
        "confidence": confidence,
        "type_margin": type_margin,
        "promise": promise.value,
        "seed": seed,
    }
    policy = Policy(replace(rules, targets=certified), predictor, default_target(certified), made)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    replay = replace(replay, predictions=crossed.predictions.by(HERE))
    known = replace(known, predictions=again.by(HERE))
    return Learnt(policy, replay, known, examples.groups)


def _key(
    outcomes: Sequence[Outcome], features: Questions, models: Sequence[Model], seed: int, background: Background
) -> str:
    """A name for what is learnt from."""
    results = (repr((outcome.id, outcome.question_type, outcome.results)).encode() for outcome in outcomes)
    beside = repr((tuple(models), seed, sorted(background.evidence.items()), background.examples.types))
    bodies = (*features.bodies, *background.examples.features.bodies)
    return key_of(itertools.chain(results, bodies, [beside.encode()]))


def cross_replayed(
    outcomes: Sequence[Outcome], models: Sequence[Model], seed: int, background: Background | None = None
) -> tuple[Replay, np.ndarray]:
    """Outcomes predicted by what is learnt without them, as `learn` does with the same seed; and their groups."""
    background = background or Background()
    outcomes, names = background.renamed(outcomes), [model.name for model in models]
    with single_threaded():
        examples = examples_of(outcomes, names, background.examples)
        crossed = cross_fit(examples, names, seed)
        return replay_of(outcomes, examples.features, crossed.predictions, models), examples.groups


def default_target(rules: Sequence[Rule]) -> float:
    """The highest target up to 97 % that saves something; `auto` keeps it."""
    useful = [
        rule.target
        for rule in rules
        if rule.expected_saving.estimate >= USEFUL_SAVING and LEAST_TARGET <= rule.target <= DEFAULT_TARGET
    ]
    return max(useful, default=DEFAULT_TARGET)


def rules_for(models: Sequence[Model], evidence: Mapping[str, Evidence], replay: Replay) -> Rules:
    """What is decided by before any target is certified."""
    dearer = float((replay.costs_usd[:, -1] - replay.costs_usd[:, 0]).mean())
    return Rules(
        models=tuple(models),
        evidence=evidence,
        targets=(),
        caution=CAUTION * min(1.0, (CAUTION_QUESTIONS / len(replay.outcomes)) ** 0.5),
        doubt_weight=DOUBT_WEIGHT,
        risk_weight=RISK_WEIGHT / len(replay.outcomes) ** 0.5,
        least_saving_usd=max(LEAST_SAVING_SHARE * dearer, 0.0),
        published_tolerance=PUBLISHED_TOLERANCE,
        least_type_probability=LEAST_TYPE_PROBABILITY,
        no_evidence_limit=NO_EVIDENCE_LIMIT,
        usual_type_probability=usual_type_probability(replay),
        familiar_until=FAMILIAR_UNTIL,
        novelty_limit=NOVELTY_LIMIT,
    )


def usual_type_probability(replay: Replay) -> float:
    """The upper decile over questions of the probability of the type that each is taken for."""
    return float(np.quantile(replay.types_told[1], 0.9))


def examples_of(
    outcomes: Sequence[Outcome],
    models: Sequence[str],
    more: TypeExamples = NO_MORE,
    workers: Workers = HERE,
    features: Questions | None = None,
) -> Examples:
    """The outcomes as the learner takes them, with questions that teach to tell types apart."""
    features = read_features(outcomes) if features is None else features
    results = [[outcome.results[model] for model in models] for outcome in outcomes]
    return Examples(
        corpus=read_corpus(Questions([*features.bodies, *more.features.bodies]), workers),
        types=types_of(outcomes),
        scores=np.array([[r.score for r in row] for row in results]),
        lengths=np.array([[np.nan if r.output_tokens is None else r.output_tokens for r in row] for row in results]),
        groups=near_duplicate_groups([outcome.text for outcome in outcomes], workers),
        more=more,
    )


def measured_evidence(examples: Examples, models: Sequence[str]) -> dict[str, Evidence]:
    """What was measured of each type, from the first outcome on: the intervals say how little few outcomes tell."""
    evidence, types = {}, np.array(examples.types)
    for name in sorted(set(examples.types)):
        rows = types == name
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
    half = student((1 + confidence) / 2, len(padded) - 1) * float(padded.std(ddof=1)) / math.sqrt(len(padded))
    centre = float(padded.mean())
    mean = float(values.mean())
    return Interval(min(max(low, centre - half), mean), mean, max(min(high, centre + half), mean))
