"""What looking at the cheap model's answers gives: outcomes become a predictor of answers and both thresholds.

An answer is worth a look on a type where it ranks questions better than the question alone does, on questions that
were predicted by what was learnt without them. Where answers are single letters there is nothing to see.

Both thresholds are certified at once by the walk of `certificate.py`, along the pairs of the grid in which a dollar
must buy as much quality at either. These are the best pairs where predictions are right: elsewhere a dollar buys more
at the other threshold. The order is fixed before a test, so that the error of the walk is that of one test
(Angelopoulos et al. 2021, Learn then Test, section 3). The test is of the whole: cheap alone, cheap then strong, and
strong alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import scipy.sparse as sp
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from calibration.learning.certificate import CONFIDENCE, TYPE_MARGIN, Walk
from calibration.learning.corpus import Ints
from calibration.learning.examples import LEAST_SCALE, NUMBER_WEIGHT
from calibration.learning.learning import Learnt
from calibration.learning.predictor import SLOPE_WEIGHT
from calibration.learning.replay import Replay, Worth, apgr
from calibration.workers import single_threaded
from router.policy.answer_features import NUMBERS
from router.policy.answer_prediction import AnswerPredictor, answer_inputs, numbers_of_answer
from router.policy.answers import AnswerRule, Answers, Help, answer_usd_needed
from router.policy.decision import Promise, Rules, savings_usd
from router.policy.document import Policy
from router.policy.vocabulary import Floats

RIDGE = 15.0
FOLDS = 5
MIN_TYPE_ANSWERS = 30  # fewer do not tell whether looking helps
LEAST_HELP = 1.0  # Student's t of what looking adds to the ranking of a type

CHEAP, CHEAP_THEN_STRONG, STRONG = range(3)


@dataclass(frozen=True, slots=True)
class Read:
    """Answers of the cheap model as the learner takes them: n questions, N hand features."""

    types: np.ndarray  # (n,) as predicted from the question
    numbers: Floats  # (n, N)
    quality: Floats  # (n, 2) of cheap and strong model, as predicted from the question
    has_answer: np.ndarray  # (n,)

    @property
    def gaps(self) -> Floats:
        return np.asarray(self.quality[:, 1] - self.quality[:, 0])


def read_answers(replay: Replay) -> Read:
    """Read the cheap model's answers beside what is predicted from their questions."""
    cheap, strong = (model.name for model in replay.models)
    answers = [outcome.results[cheap].answer for outcome in replay.outcomes]
    rows = zip(replay.features, replay.predictions, answers, strict=True)
    none = [0.0] * len(NUMBERS)
    return Read(
        types=np.array([prediction.question_type for prediction in replay.predictions]),
        numbers=np.array([numbers_of_answer(f, p, a) if isinstance(a, str) else none for f, p, a in rows]),
        quality=np.array([[p.quality[cheap], p.quality[strong]] for p in replay.predictions]),
        has_answer=np.array([isinstance(answer, str) for answer in answers]),
    )


def fit_answers(read: Read, gaps: Floats, rows: Ints, types: Sequence[str]) -> AnswerPredictor:
    """Fit the weights on these rows; `gaps` (n,) are the strong model's scores minus the cheap one's."""
    numbers = read.numbers[rows]
    scale = numbers.std(axis=0)
    mean, scale = numbers.mean(axis=0), np.where(scale < LEAST_SCALE, np.inf, scale)
    inputs = answer_inputs(mean, scale, numbers, read.quality[rows])
    count = len(NUMBERS)
    column = {name: at for at, name in enumerate(types)}
    of_type = np.array([column[str(name)] for name in read.types[rows]])
    ends = np.arange(len(rows) + 1) * count
    places = (of_type[:, None] * count + np.arange(count)).ravel()
    slopes = sp.csr_matrix((inputs[:, :count].ravel() * SLOPE_WEIGHT, places, ends), (len(rows), len(types) * count))
    shared = sp.csr_matrix(np.hstack([inputs[:, :count] * NUMBER_WEIGHT, inputs[:, count:-1]]))
    ridge = Ridge(RIDGE, tol=1e-4).fit(sp.csr_matrix(sp.hstack([shared, slopes])), (gaps - read.gaps)[rows])
    own = ridge.coef_[shared.shape[1] :].reshape(len(types), count) * SLOPE_WEIGHT
    beside = np.append(ridge.coef_[count : shared.shape[1]], ridge.intercept_)
    weights = np.hstack([own + ridge.coef_[:count] * NUMBER_WEIGHT, np.tile(beside, (len(types), 1))])
    return AnswerPredictor(tuple(types), mean, scale, weights)


def predicted_gaps(predictor: AnswerPredictor, read: Read, rows: Ints) -> Floats:
    """What the strong model is expected to add on these rows (k,), by question and answer."""
    inputs = answer_inputs(predictor.number_mean, predictor.number_scale, read.numbers[rows], read.quality[rows])
    found = read.gaps[rows]
    for name in np.unique(read.types[rows]):
        mine = read.types[rows] == name
        found[mine] += predictor.correction(str(name), inputs[mine])
    return np.clip(found, -1.0, 1.0)


def cross_fitted_gaps(read: Read, gaps: Floats, groups: Ints, types: Sequence[str], seed: int) -> Floats:
    """The same for every row (n,), each by what was learnt without it and its near-duplicates."""
    found = read.gaps
    there = np.flatnonzero(read.has_answer)
    folds = GroupKFold(min(FOLDS, len(np.unique(groups[there]))), shuffle=True, random_state=seed)
    for train, test in folds.split(there, groups=groups[there]):
        predictor = fit_answers(read, gaps, there[train], types)
        found[there[test]] = predicted_gaps(predictor, read, there[test])
    return found


def helped_types(read: Read, found: Floats, scores: Floats) -> dict[str, Help]:
    """The types on which question and answer rank better than the question alone, by cross-fitted gaps `found` (n,).

    What a row adds is its gain, against the mean gain of its type, by how much higher it is ranked.
    """
    gains = scores[:, 1] - scores[:, 0]
    helped = {}
    for name in np.unique(read.types[read.has_answer]):
        mine = np.flatnonzero((read.types == name) & read.has_answer)
        if len(mine) < MIN_TYPE_ANSWERS:
            continue
        higher = (stats.rankdata(found[mine]) - stats.rankdata(read.gaps[mine])) / len(mine)
        added = (gains[mine] - gains[mine].mean()) * higher
        error = float(added.std(ddof=1)) / len(mine) ** 0.5
        score = float(added.mean()) / error if error else 0.0
        if score > LEAST_HELP:
            with_answer, without = (apgr(ranks[mine], scores[mine]) for ranks in (found, read.gaps))
            helped[str(name)] = Help(len(mine), with_answer, without, score)
    return helped


@dataclass(frozen=True, slots=True)
class ThreeWays(Worth):
    """What a dollar must buy for each question to be answered by the cheap model alone, at one target."""

    is_tried: np.ndarray  # (n,) whether the cheap model is asked first

    def chosen(self, quality_per_usd: Floats) -> Ints:
        """The way that is chosen at a price of quality for each question (n,)."""
        otherwise = np.where(self.is_tried, CHEAP_THEN_STRONG, STRONG)
        return np.where(self.table[:, 0] <= quality_per_usd, CHEAP, otherwise)


@dataclass(frozen=True, slots=True)
class LookedAt(Replay):
    """Outcomes with three ways to answer: cheap alone, cheap then strong (both are paid), strong alone."""

    is_looked_at: np.ndarray  # (n,)
    answer_gaps: Floats  # (n,) by question and answer where it is looked at, else by the question
    answer_needed: Floats  # (n,) quality per dollar from which on the answer is passed on

    @property
    def gaps(self) -> Floats:
        return self.answer_gaps

    def worth(self, rules: Rules, targets: Sequence[float]) -> list[Worth]:
        """At each target, at which price of quality each question is answered in which way; both thresholds are it."""
        return [self._with_answers(each.needed) for each in Replay.worth(self, rules, targets)]

    def _with_answers(self, by_question: Floats) -> Worth:
        tried = self.is_looked_at & np.isfinite(by_question)
        return ThreeWays(np.where(tried, self.answer_needed, by_question)[:, None], len(self.models), tried)

    def chosen_by(self, rules: Rules, rule: AnswerRule) -> Ints:
        """The way in which a rule answers each question (n,); all by the strong model alone where it routes none."""
        if rule.quality_per_usd is None:
            return np.full(len(self.outcomes), STRONG)
        limits = [rule.type_limits.get(p.question_type, np.inf) for p in self.predictions]
        return self.choices(rules, rule.target)(np.minimum(rule.quality_per_usd, limits))


def looked_at(replay: Replay, rules: Rules, types: Mapping[str, Help], read: Read, found: Floats) -> LookedAt:
    """The replay with the answers of these types looked at; `found` (n,) are gaps by question and answer."""
    cheap = replay.models[0].name
    rows = zip(replay.features, replay.predictions, strict=True)
    savings = np.array([savings_usd(rules, f, p, None)[cheap] for f, p in rows])
    looked = np.isin(read.types, list(types)) & read.has_answer
    both = replay.costs_usd.sum(axis=1)
    inherited = {each.name: getattr(replay, each.name) for each in fields(Replay)}
    return LookedAt(
        **inherited
        | {
            "scores": replay.scores[:, [0, 1, 1]],
            "costs_usd": np.column_stack([replay.costs_usd[:, 0], both, replay.costs_usd[:, 1]]),
        },
        is_looked_at=looked,
        answer_gaps=np.where(looked, found, replay.gaps),
        answer_needed=np.array([answer_usd_needed(g, s) for g, s in zip(found, savings, strict=True)]),
    )


def learn_answers(
    learnt: Learnt,
    seed: int,
    confidence: float = CONFIDENCE,
    promise: Promise = Promise.CERTIFIED,
    type_margin: float = TYPE_MARGIN,
) -> Answers | None:
    """Learn from the cheap model's answers to the questions of a policy; None where looking at them helps no type."""
    policy, replay, groups = learnt.policy, learnt.replay, learnt.groups
    if len(replay.models) != 2:
        return None
    read = read_answers(replay)
    if read.has_answer.sum() < MIN_TYPE_ANSWERS:
        return None
    types, gains = policy.predictor.types, replay.scores[:, 1] - replay.scores[:, 0]
    found = cross_fitted_gaps(read, gains, groups, types, seed)
    helped = helped_types(read, found, replay.scores)
    if not helped:
        return None
    predictor = fit_answers(read, gains, np.flatnonzero(read.has_answer), types)
    whole = looked_at(replay, policy.rules, helped, read, found)
    read_again = read_answers(learnt.known)
    again = predicted_gaps(predictor, read_again, np.arange(len(groups)))
    known = looked_at(learnt.known, policy.rules, helped, read_again, again)
    walk = Walk(policy.rules, whole, known, groups, confidence, type_margin)
    rules = walk.all_rules([rule.target for rule in policy.rules.targets], seed, promise)
    both = [
        AnswerRule(**{each.name: getattr(rule, each.name) for each in fields(rule)}, answer_limit=rule.quality_per_usd)
        for rule in rules
    ]
    return Answers(predictor, helped, both)


def with_answers(learnt: Learnt, seed: int, confidence: float, promise: Promise, type_margin: float) -> Learnt:
    """The same, whose policy knows which answers to pass on, where looking at them helps a type."""
    with single_threaded():
        answers = learn_answers(learnt, seed, confidence, promise, type_margin)
    return replace(learnt, policy=replace(learnt.policy, answers=answers))


def replay_answers(policy: Policy, answers: Answers, replay: Replay) -> LookedAt:
    """What a policy does on outcomes with answers looked at: `replay` are its predictions on them."""
    read = read_answers(replay)
    found = read.gaps
    there = np.flatnonzero(read.has_answer)
    found[there] = predicted_gaps(answers.predictor, read, there)
    return looked_at(replay, policy.rules, answers.types, read, found)
