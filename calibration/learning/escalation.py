"""Learning which answers of the cheap model to accept, and which questions to escalate to the strong model.

A policy with answer rules is a cascade: the proxy requests an answer of the cheap model, predicts from question and
answer whether the strong model would do better, and then returns the answer or requests one of the strong model. The
cascade is used for a type of question only where the answer improves the ranking of its questions, by cross-fitted
predictions. Answers that are single letters carry no information.

A cascade has two thresholds: one to try the cheap model, one to accept its answer. `certificate.py` certifies both at
once, along the pairs of equal thresholds (quality per dollar). Where predictions are correct, other pairs are worse: a
dollar buys more quality at one threshold than at the other. The order of the pairs is fixed before the first test, so
that the family-wise error is that of a single test (Angelopoulos et al. 2021, Learn then Test, section 3). The test
covers the whole cascade: cheap model only, both models, and strong model only.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import scipy.sparse as sp
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from calibration.learning.certificate import TYPE_MARGIN, FixedSequenceTest
from calibration.learning.corpus import Ints
from calibration.learning.examples import MIN_SCALE, NUMBER_WEIGHT
from calibration.learning.intervals import CONFIDENCE
from calibration.learning.learning import LearningResult
from calibration.learning.predictor import SLOPE_WEIGHT
from calibration.learning.ranking import apgr
from calibration.learning.replay import Replay, Thresholds, largest_thresholds
from calibration.workers import single_threaded
from router.policy.answer_features import FEATURE_NAMES
from router.policy.answer_prediction import AnswerPredictor, answer_inputs, features_of_answer
from router.policy.answers import AnswerBenefit, AnswerRule, Answers, answer_quality_per_usd
from router.policy.document import Policy
from router.policy.expected_cost import savings_usd
from router.policy.logprobs import LOGPROB_NAMES
from router.policy.rules import Promise, Rule, Rules
from router.policy.vocabulary import Floats

RIDGE = 15.0
FOLDS = 5
MIN_TYPE_ANSWERS = 30  # of a type that is examined
MIN_T_STATISTIC = 1.0  # Student's t of the improvement of the ranking, for a type to be selected

CHEAP, CHEAP_THEN_STRONG, STRONG = range(3)  # columns of a cascade's scores and costs


@dataclass(frozen=True, slots=True)
class AnswerInputs:
    """The cheap model's answers as inputs of the regression: n questions, N features of the answer."""

    types: np.ndarray  # (n,) predicted from the question
    numbers: Floats  # (n, N)
    quality: Floats  # (n, 2) of the cheap and the strong model, predicted from the question
    has_answer: np.ndarray  # (n,)
    logprobs: Floats  # (n, 3) `LOGPROB_NAMES`; NaN where none were recorded

    @property
    def gaps(self) -> Floats:
        """The strong model's quality minus the cheap one's, predicted from the question (n,)."""
        return np.asarray(self.quality[:, 1] - self.quality[:, 0])

    @property
    def has_logprobs(self) -> np.ndarray:
        """Whether log probabilities were recorded (n,)."""
        return ~np.isnan(self.logprobs[:, 0])

    def with_logprobs(self) -> AnswerInputs:
        """Inputs whose features include the log probabilities; their mean where none were recorded."""
        recorded = self.logprobs[self.has_logprobs]
        means = recorded.mean(axis=0) if len(recorded) else np.zeros(len(LOGPROB_NAMES))
        filled = np.where(np.isnan(self.logprobs), means, self.logprobs)
        return replace(self, numbers=np.hstack([self.numbers, filled]))

    def read_by(self, predictor: AnswerPredictor) -> AnswerInputs:
        """The inputs with the features that a predictor reads."""
        return self.with_logprobs() if predictor.has_logprobs else self


def read_answer_inputs(replay: Replay) -> AnswerInputs:
    """The features of the cheap model's answers, with the predictions from their questions."""
    cheap, strong = (model.name for model in replay.models)
    answers = [outcome.results[cheap].answer for outcome in replay.outcomes]
    rows = zip(replay.features, replay.predictions, answers, strict=True)
    zeros, unknown = [0.0] * len(FEATURE_NAMES), [np.nan] * len(LOGPROB_NAMES)
    return AnswerInputs(
        types=np.array([prediction.question_type for prediction in replay.predictions]),
        numbers=np.array([features_of_answer(f, p, a) if isinstance(a, str) else zeros for f, p, a in rows]),
        quality=np.array([[p.quality[cheap], p.quality[strong]] for p in replay.predictions]),
        has_answer=np.array([isinstance(answer, str) for answer in answers]),
        logprobs=np.array([outcome.results[cheap].logprobs or unknown for outcome in replay.outcomes]),
    )


def fit_answer_predictor(inputs: AnswerInputs, gaps: Floats, rows: Ints, types: Sequence[str]) -> AnswerPredictor:
    """Fit the weights on these rows; `gaps` (n,) are the strong model's scores minus the cheap one's."""
    numbers = inputs.numbers[rows]
    scale = numbers.std(axis=0)
    mean, scale = numbers.mean(axis=0), np.where(scale < MIN_SCALE, np.inf, scale)
    table = answer_inputs(mean, scale, numbers, inputs.quality[rows])
    count = numbers.shape[1]
    column = {name: at for at, name in enumerate(types)}
    of_type = np.array([column[str(name)] for name in inputs.types[rows]])
    ends = np.arange(len(rows) + 1) * count
    places = (of_type[:, None] * count + np.arange(count)).ravel()
    slopes = sp.csr_matrix((table[:, :count].ravel() * SLOPE_WEIGHT, places, ends), (len(rows), len(types) * count))
    shared = sp.csr_matrix(np.hstack([table[:, :count] * NUMBER_WEIGHT, table[:, count:-1]]))
    ridge = Ridge(RIDGE, tol=1e-4).fit(sp.csr_matrix(sp.hstack([shared, slopes])), (gaps - inputs.gaps)[rows])
    by_type = ridge.coef_[shared.shape[1] :].reshape(len(types), count) * SLOPE_WEIGHT
    other = np.append(ridge.coef_[count : shared.shape[1]], ridge.intercept_)
    weights = np.hstack([by_type + ridge.coef_[:count] * NUMBER_WEIGHT, np.tile(other, (len(types), 1))])
    return AnswerPredictor(tuple(types), mean, scale, weights)


def predict_gaps(predictor: AnswerPredictor, inputs: AnswerInputs, rows: Ints) -> Floats:
    """The strong model's quality minus the cheap one's on these rows (k,), predicted from question and answer."""
    table = answer_inputs(predictor.number_mean, predictor.number_scale, inputs.numbers[rows], inputs.quality[rows])
    gaps = inputs.gaps[rows]
    for name in np.unique(inputs.types[rows]):
        of_type = inputs.types[rows] == name
        gaps[of_type] += predictor.correction(str(name), table[of_type])
    return np.clip(gaps, -1.0, 1.0)


def cross_fit_gaps(inputs: AnswerInputs, gaps: Floats, groups: Ints, types: Sequence[str], seed: int) -> Floats:
    """Cross-fitted gaps of all rows (n,); rows without an answer have the gap predicted from the question."""
    predicted = inputs.gaps
    answered = np.flatnonzero(inputs.has_answer)
    folds = GroupKFold(min(FOLDS, len(np.unique(groups[answered]))), shuffle=True, random_state=seed)
    for train, test in folds.split(answered, groups=groups[answered]):
        predictor = fit_answer_predictor(inputs, gaps, answered[train], types)
        predicted[answered[test]] = predict_gaps(predictor, inputs, answered[test])
    return predicted


def select_types(
    inputs: AnswerInputs, predicted: Floats, scores: Floats, compared: Floats | None = None
) -> dict[str, AnswerBenefit]:
    """The types whose questions are ranked better by question and answer than by the question alone.

    `predicted` (n,) are cross-fitted gaps; `compared` (n,) replace those that are predicted from the question. The
    contribution of a row is its gain relative to the mean gain of its type, times the change of its rank. A type is
    selected by the t statistic of the mean contribution.
    """
    gains, compared = scores[:, 1] - scores[:, 0], inputs.gaps if compared is None else compared
    selected = {}
    for name in np.unique(inputs.types[inputs.has_answer]):
        rows = np.flatnonzero((inputs.types == name) & inputs.has_answer)
        if len(rows) < MIN_TYPE_ANSWERS:
            continue
        rank_change = (stats.rankdata(predicted[rows]) - stats.rankdata(compared[rows])) / len(rows)
        contributions = (gains[rows] - gains[rows].mean()) * rank_change
        error = float(contributions.std(ddof=1)) / len(rows) ** 0.5
        statistic = float(contributions.mean()) / error if error else 0.0
        if statistic > MIN_T_STATISTIC:
            recovered = (apgr(ranks[rows], scores[rows]) for ranks in (predicted, compared))
            with_answer, without = (None if math.isnan(value) else value for value in recovered)
            selected[str(name)] = AnswerBenefit(len(rows), with_answer, without, statistic)
    return selected


def select_logprob_types(
    inputs: AnswerInputs, predicted: Floats, with_logprobs: Floats, scores: Floats
) -> dict[str, AnswerBenefit]:
    """The types whose answers are ranked better with their log probabilities, which every answer must have."""
    missing = np.unique(inputs.types[inputs.has_answer & ~inputs.has_logprobs])
    complete = replace(inputs, has_answer=inputs.has_answer & ~np.isin(inputs.types, missing))
    return select_types(complete, with_logprobs, scores, predicted)


def add_logprobs(plain: AnswerPredictor, extended: AnswerPredictor, types: Collection[str]) -> AnswerPredictor:
    """The weights of `extended`, which reads log probabilities, for these types; those of `plain` for all others."""
    first = len(plain.number_mean)
    padding = np.zeros(len(extended.number_mean) - first)
    weights = extended.weights.copy()
    for row, name in enumerate(extended.types):
        if name not in types:
            weights[row] = np.concatenate([plain.weights[row, :first], padding, plain.weights[row, first:]])
    return replace(extended, weights=weights)


@dataclass(frozen=True, slots=True)
class CascadeThresholds(Thresholds):
    """The thresholds of a cascade: from which each question is answered by the cheap model only."""

    tries_cheap: np.ndarray  # (n,) whether the cheap model is asked first

    def choose(self, quality_per_usd: Floats) -> Ints:
        """The column of the cascade (n,) at a threshold for each question (n,)."""
        otherwise = np.where(self.tries_cheap, CHEAP_THEN_STRONG, STRONG)
        return np.where(self.table[:, 0] <= quality_per_usd, CHEAP, otherwise)


@dataclass(frozen=True, slots=True)
class CascadeReplay(Replay):
    """Outcomes with three ways to answer: cheap model only, cheap then strong (both are billed), strong model only."""

    uses_answer: np.ndarray  # (n,) whether the question has a selected type and an answer
    answer_gaps: Floats  # (n,) predicted from question and answer where the answer is used, else from the question
    acceptance_thresholds: Floats  # (n,) quality per dollar from which the cheap model's answer is accepted

    @property
    def gaps(self) -> Floats:
        """The predicted gaps (n,): the rank for escalation."""
        return self.answer_gaps

    def thresholds(self, rules: Rules, targets: Sequence[float]) -> list[Thresholds]:
        """For each target, the thresholds at which each question changes its column."""
        return [self._add_cascade(of_target.switch_thresholds) for of_target in Replay.thresholds(self, rules, targets)]

    def _add_cascade(self, by_question: Floats) -> Thresholds:
        tried = self.uses_answer & np.isfinite(by_question)
        table = np.where(tried, self.acceptance_thresholds, by_question)[:, None]
        return CascadeThresholds(table, len(self.models), tried)

    def choose_by_rule(self, rules: Rules, rule: AnswerRule) -> Ints:
        """The column of the cascade that a rule chooses for each question (n,); STRONG where it does not route."""
        if rule.quality_per_usd is None:
            return np.full(len(self.outcomes), STRONG)
        return self.chooser(rules, rule.target)(largest_thresholds(rule, self.question_types))


def build_cascade(
    replay: Replay, rules: Rules, types: Mapping[str, AnswerBenefit], inputs: AnswerInputs, predicted: Floats
) -> CascadeReplay:
    """The replay of a cascade for these types; `predicted` (n,) are gaps by question and answer."""
    cheap = replay.models[0].name
    rows = zip(replay.features, replay.predictions, strict=True)
    savings = np.array([savings_usd(rules, f, p, None)[cheap] for f, p in rows])
    uses_answer = np.isin(inputs.types, list(types)) & inputs.has_answer
    both = replay.costs_usd.sum(axis=1)
    inherited = {field.name: getattr(replay, field.name) for field in fields(Replay)}
    return CascadeReplay(
        **inherited
        | {
            "scores": replay.scores[:, [0, 1, 1]],
            "costs_usd": np.column_stack([replay.costs_usd[:, 0], both, replay.costs_usd[:, 1]]),
        },
        uses_answer=uses_answer,
        answer_gaps=np.where(uses_answer, predicted, replay.gaps),
        acceptance_thresholds=np.array([answer_quality_per_usd(g, s) for g, s in zip(predicted, savings, strict=True)]),
    )


def learn_answer_rules(
    learnt: LearningResult,
    seed: int,
    confidence: float = CONFIDENCE,
    promise: Promise = Promise.CERTIFIED,
    type_margin: float = TYPE_MARGIN,
) -> Answers | None:
    """Learn which answers of the cheap model to accept; None where answers improve the ranking of no type."""
    policy, replay, groups = learnt.policy, learnt.replay, learnt.groups
    if len(replay.models) != 2:
        return None
    inputs = read_answer_inputs(replay)
    if inputs.has_answer.sum() < MIN_TYPE_ANSWERS:
        return None
    types, gains = policy.predictor.types, replay.scores[:, 1] - replay.scores[:, 0]
    cross_fitted = cross_fit_gaps(inputs, gains, groups, types, seed)
    logprob_types: Collection[str] = ()
    if inputs.has_logprobs.any():
        with_logprobs = cross_fit_gaps(inputs.with_logprobs(), gains, groups, types, seed)
        logprob_types = select_logprob_types(inputs, cross_fitted, with_logprobs, replay.scores)
        cross_fitted = np.where(np.isin(inputs.types, list(logprob_types)), with_logprobs, cross_fitted)
    selected = select_types(inputs, cross_fitted, replay.scores)
    if not selected:
        return None
    answered = np.flatnonzero(inputs.has_answer)
    predictor = fit_answer_predictor(inputs, gains, answered, types)
    if logprob_types := selected.keys() & logprob_types:
        extended = fit_answer_predictor(inputs.with_logprobs(), gains, answered, types)
        predictor = add_logprobs(predictor, extended, logprob_types)
    cascade = build_cascade(replay, policy.rules, selected, inputs, cross_fitted)
    in_sample_inputs = read_answer_inputs(learnt.in_sample_replay)
    in_sample_gaps = predict_gaps(predictor, in_sample_inputs.read_by(predictor), np.arange(len(groups)))
    in_sample = build_cascade(learnt.in_sample_replay, policy.rules, selected, in_sample_inputs, in_sample_gaps)
    test = FixedSequenceTest(policy.rules, cascade, in_sample, groups, confidence, type_margin)
    rules = test.certify([rule.target for rule in policy.rules.targets], seed, promise)
    return Answers(predictor, selected, [_answer_rule(rule) for rule in rules])


def _answer_rule(rule: Rule) -> AnswerRule:
    """The rule with one value for both thresholds."""
    inherited = {field.name: getattr(rule, field.name) for field in fields(rule)}
    return AnswerRule(**inherited, answer_limit=rule.quality_per_usd)


def add_answer_rules(
    learnt: LearningResult, seed: int, confidence: float, promise: Promise, type_margin: float
) -> LearningResult:
    """The result whose policy also has answer rules, if they improve the ranking of a type."""
    with single_threaded():
        answers = learn_answer_rules(learnt, seed, confidence, promise, type_margin)
    return replace(learnt, policy=replace(learnt.policy, answers=answers))


def replay_cascade(policy: Policy, answers: Answers, replay: Replay) -> CascadeReplay:
    """What a policy with answer rules would have done; `replay` has its predictions on the outcomes."""
    inputs = read_answer_inputs(replay)
    gaps = inputs.gaps
    reading = [name for name in answers.types if answers.predictor.reads_logprobs(name)]
    lacks_logprobs = np.isin(inputs.types, reading) & ~inputs.has_logprobs
    inputs = replace(inputs, has_answer=inputs.has_answer & ~lacks_logprobs)
    answered = np.flatnonzero(inputs.has_answer)
    gaps[answered] = predict_gaps(answers.predictor, inputs.read_by(answers.predictor), answered)
    return build_cascade(replay, policy.rules, answers.types, inputs, gaps)
