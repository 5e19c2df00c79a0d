"""Learning a policy from outcomes: predictor, evidence by type, and certified thresholds."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.learning.certificate import TARGETS, TYPE_MARGIN, USEFUL_SAVING, FixedSequenceTest
from calibration.learning.corpus import Questions, read_corpus
from calibration.learning.crossfit import cross_fit, in_sample_predictions
from calibration.learning.duplicates import near_duplicate_groups
from calibration.learning.examples import Examples, TypeExamples, read_features
from calibration.learning.intervals import CONFIDENCE, mean_interval
from calibration.learning.predictor import fit
from calibration.learning.prior import Prior
from calibration.learning.replay import Replay, build_replay
from calibration.learning.resuming import ResumableWorkers, work_key
from calibration.outcomes import Outcome, question_types
from calibration.workers import IN_PROCESS, Workers, single_threaded
from router.policy.document import Policy
from router.policy.rules import Evidence, Model, Promise, Rule, Rules

DEFAULT_TARGET = 0.97
MIN_USEFUL_TARGET = 0.9  # share of the strong model's quality; a lower target is not suggested
CAUTION = 0.05  # quality added to the strong model's prediction, since a predictor of few questions errs
CAUTION_QUESTIONS = 640  # up to this many questions; beyond it, the caution falls with the square root of their number
DOUBT_WEIGHT = 0.5  # in standard deviations of the gap over the types that the question may have
RISK_WEIGHT = 5.0  # over the root of n: with n questions, those on which the models differ widen the interval
MIN_SAVING_SHARE = 0.5  # share of the models' mean cost difference: the smallest saving assumed for a request
MIN_TYPE_PROBABILITY = 0.3  # of the predicted type; below it, the strong model answers
NO_EVIDENCE_LIMIT = 0.2  # probability of types without evidence; above it, the strong model answers
FAMILIAR_UNTIL = 0.8  # novelty from which the saving counts less
NOVELTY_LIMIT = 0.95  # classifies about 5 % of familiar questions as novel
PUBLISHED_TOLERANCE = 0.01  # quality; two runs of one model differ by more
MIN_MEASURED_SHARE = 0.015  # share of the questions; a type with fewer outcomes keeps its published results
MIN_QUESTIONS = 60
NO_TYPE_EXAMPLES = TypeExamples()


class LearningError(ValueError):
    """There are too few outcomes to learn from."""


@dataclass(frozen=True, slots=True)
class LearningResult:
    """A policy, with replays of the questions that it was learnt from."""

    policy: Policy
    replay: Replay  # each question is predicted by a model that was fitted without it
    in_sample_replay: Replay  # the same questions, predicted by the policy's predictor
    groups: np.ndarray  # (n,) near-duplicates share a number


def learn(
    outcomes: Sequence[Outcome],
    models: Sequence[Model],
    seed: int,
    about: Mapping[str, Any],
    prior: Prior | None = None,
    targets: Sequence[float] = TARGETS,
    confidence: float = CONFIDENCE,
    promise: Promise = Promise.CERTIFIED,
    type_margin: float = TYPE_MARGIN,
    workers: Workers = IN_PROCESS,
    folder: Path | None = None,
) -> LearningResult:
    """Learn a policy for `models` (cheap to strong) from outcomes that have a result of each model.

    `prior` adds typed questions and evidence to the outcomes; without it, types without outcomes have no evidence. The
    policy has the same bytes for any workers. Their results are stored in `folder` until the policy is complete, so
    that the same call resumes after an interruption.

    Raises:
        LearningError: there are too few questions.
    """
    if len(outcomes) < MIN_QUESTIONS:
        raise LearningError(f"{len(outcomes)} questions are too few to learn from; at least {MIN_QUESTIONS} are needed")
    prior = prior or Prior()
    names = [model.name for model in models]
    outcomes = prior.rename_types(outcomes)
    features = read_features(outcomes)
    if folder is not None:
        workers = ResumableWorkers(workers, folder, _work_key(outcomes, features, models, seed, prior))
    with single_threaded():
        examples = build_examples(outcomes, names, prior.examples, workers, features)
        cross_fitted = cross_fit(examples, names, seed, workers)
        predictor = cross_fitted.add_familiarity(fit(examples, names, workers))
        replay = build_replay(outcomes, features, cross_fitted.predictions, models)
        evidence = _combine_evidence(prior.evidence, measure_evidence(examples, names), len(outcomes))
        rules = build_rules(models, evidence, replay)
        in_sample = in_sample_predictions(examples, predictor, workers)
        in_sample_replay = build_replay(outcomes, features, in_sample, models)
        test = FixedSequenceTest(rules, replay, in_sample_replay, examples.groups, confidence, type_margin)
        rules = replace(rules, targets=tuple(test.certify(targets, seed, promise)))
    metadata = {
        **about,
        "questions": len(outcomes),
        "confidence": confidence,
        "type_margin": type_margin,
        "promise": promise.value,
        "seed": seed,
    }
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    return LearningResult(
        Policy(rules, predictor, choose_default_target(rules.targets), metadata),
        replay,
        in_sample_replay,
        examples.groups,
    )


def _work_key(
    outcomes: Sequence[Outcome], features: Questions, models: Sequence[Model], seed: int, prior: Prior
) -> str:
    """The key of stored results of workers: it changes with everything that is learnt from."""
    results = (repr((outcome.id, outcome.question_type, outcome.results)).encode() for outcome in outcomes)
    settings = repr((tuple(models), seed, sorted(prior.evidence.items()), prior.examples.types))
    bodies = (*features.bodies, *prior.examples.features.bodies)
    return work_key(itertools.chain(results, bodies, [settings.encode()]))


def _combine_evidence(
    published: Mapping[str, Evidence], measured: Mapping[str, Evidence], questions: int
) -> dict[str, Evidence]:
    """The evidence by type. Measured evidence replaces published evidence unless it has very few outcomes."""
    enough = {
        name: evidence
        for name, evidence in measured.items()
        if name not in published or evidence.n >= min(MIN_MEASURED_SHARE * questions, published[name].n)
    }
    return {**published, **enough}


def cross_fit_replay(
    outcomes: Sequence[Outcome], models: Sequence[Model], seed: int, prior: Prior | None = None
) -> tuple[Replay, np.ndarray]:
    """The cross-fitted replay that `learn` uses with the same seed, and the groups of near-duplicates (n,)."""
    prior = prior or Prior()
    outcomes, names = prior.rename_types(outcomes), [model.name for model in models]
    with single_threaded():
        examples = build_examples(outcomes, names, prior.examples)
        cross_fitted = cross_fit(examples, names, seed)
        return build_replay(outcomes, examples.features, cross_fitted.predictions, models), examples.groups


def choose_default_target(rules: Sequence[Rule]) -> float:
    """The target that `auto` keeps: the highest one from 90 to 97 % with a useful saving, else 97 %."""
    useful = [
        rule.target
        for rule in rules
        if rule.expected_saving.estimate >= USEFUL_SAVING and MIN_USEFUL_TARGET <= rule.target <= DEFAULT_TARGET
    ]
    return max(useful, default=DEFAULT_TARGET)


def build_rules(models: Sequence[Model], evidence: Mapping[str, Evidence], replay: Replay) -> Rules:
    """The rules of a policy, still without targets."""
    n = len(replay.outcomes)
    mean_difference_usd = float((replay.costs_usd[:, -1] - replay.costs_usd[:, 0]).mean())
    return Rules(
        models=tuple(models),
        evidence=evidence,
        targets=(),
        caution=CAUTION * min(1.0, (CAUTION_QUESTIONS / n) ** 0.5),
        doubt_weight=DOUBT_WEIGHT,
        risk_weight=RISK_WEIGHT / n**0.5,
        least_saving_usd=max(MIN_SAVING_SHARE * mean_difference_usd, 0.0),
        published_tolerance=PUBLISHED_TOLERANCE,
        least_type_probability=MIN_TYPE_PROBABILITY,
        no_evidence_limit=NO_EVIDENCE_LIMIT,
        usual_type_probability=usual_type_probability(replay),
        familiar_until=FAMILIAR_UNTIL,
        novelty_limit=NOVELTY_LIMIT,
    )


def usual_type_probability(replay: Replay) -> float:
    """The 0.9 quantile, over all questions, of the probability of the predicted type."""
    return float(np.quantile(replay.type_predictions[1], 0.9))


def build_examples(
    outcomes: Sequence[Outcome],
    models: Sequence[str],
    type_examples: TypeExamples = NO_TYPE_EXAMPLES,
    workers: Workers = IN_PROCESS,
    features: Questions | None = None,
) -> Examples:
    """The outcomes as arrays, with further typed questions to learn types from."""
    features = read_features(outcomes) if features is None else features
    results = [[outcome.results[model] for model in models] for outcome in outcomes]
    return Examples(
        corpus=read_corpus(Questions([*features.bodies, *type_examples.features.bodies]), workers),
        types=question_types(outcomes),
        scores=np.array([[r.score for r in row] for row in results]),
        output_tokens=np.array(
            [[np.nan if r.output_tokens is None else r.output_tokens for r in row] for row in results]
        ),
        groups=near_duplicate_groups([outcome.text for outcome in outcomes], workers),
        type_examples=type_examples,
    )


def measure_evidence(examples: Examples, models: Sequence[str]) -> dict[str, Evidence]:
    """The evidence of each type that has outcomes, however few: the intervals show how much is known."""
    evidence, types = {}, np.array(examples.types)
    for name in sorted(set(examples.types)):
        rows = types == name
        scores, tokens = examples.scores[rows], examples.output_tokens[rows]
        means = {m: float(np.nanmean(v)) for m, v in zip(models, tokens.T, strict=True) if not np.isnan(v).all()}
        evidence[name] = Evidence(
            kind="measured",
            n=len(scores),
            quality={model: mean_interval(scores[:, m], 0.0, 1.0) for m, model in enumerate(models)},
            quality_difference=mean_interval(scores[:, 0] - scores[:, -1], -1.0, 1.0),
            output_tokens=means,
        )
    return evidence
