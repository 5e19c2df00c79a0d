"""Outcomes become a predictor: what each model is worth on a question, what it writes, which type it is, how unusual.

The score of a model is the mean of the predicted question type and what a linear head adds to it, in which the hand
features weigh differently for each type. The answer's length has such a head of its own; a linear classifier tells the
type. All read word TF-IDF and hand features. scikit-learn fits them, `export` folds them into the plain arrays that the
proxy reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion
from sklearn.preprocessing import StandardScaler

from calibration.examples import MIN_TYPE_QUESTIONS, NUMBER_WEIGHT, Examples, TypeExamples, input_union
from calibration.novelty import Centres, centres_of, novelty_quantiles
from router.policy.features import Features
from router.policy.inputs import NUMBER_NAMES
from router.policy.prediction import MAX_OUTPUT_TOKENS, Floats, Predictor

UNKNOWN_LENGTH = 200.0  # tokens of an answer, where no answer's length is known
PRIOR_QUESTIONS = 20.0  # weight of what is known before in the mean of a type, in questions
SLOPE_WEIGHT = 0.3  # of a hand feature within its type, where it weighs NUMBER_WEIGHT over all
RIDGE = 30.0
TYPE_INVERSE_RIDGE = 10.0
NO_MORE = TypeExamples()


@dataclass(frozen=True, slots=True)
class Fitted:
    """The scikit-learn estimators, and what is needed beside them to predict."""

    models: tuple[str, ...]
    types: tuple[str, ...]
    inputs: FeatureUnion
    heads: Ridge
    classifier: LogisticRegression | DummyClassifier
    type_quality: Floats  # (T, M)
    type_log_length: Floats  # (T, M)
    type_measured: Floats  # (T,) 1 where outcomes of the type were learnt from
    length_smearing: Floats  # (M,)
    centres: Centres
    novelty_quantiles: Floats  # (T, Q)

    def predict(self, rows: Sequence[Features]) -> tuple[Floats, Floats, list[str]]:
        """Quality (n, M), output tokens (n, M) and question type of each request, by scikit-learn's own path."""
        inputs = self.inputs.transform(rows)
        likely = self.classifier.predict_proba(inputs)
        heads = self.heads.predict(_with_slopes(inputs, likely))
        models = len(self.models)
        measured = (likely @ self.type_measured)[:, None]
        quality = likely @ self.type_quality + measured * heads[:, :models]
        logs = likely @ self.type_log_length + measured * heads[:, models:]
        lengths = np.exp(np.minimum(logs, np.log(MAX_OUTPUT_TOKENS))) * self.length_smearing
        types = [self.types[column] for column in likely.argmax(axis=1)]
        return np.clip(quality, 0, 1), np.clip(lengths, 1, MAX_OUTPUT_TOKENS), types

    def export(self) -> Predictor:
        """The same predictor as plain arrays."""
        tfidf: TfidfVectorizer = self.inputs["words"]["tfidf"]
        scaler: StandardScaler = self.inputs["numbers"]["scale"]
        type_weights, type_intercept = self._type_weights()
        inputs = type_weights.shape[1]
        weights = np.vstack([self.heads.coef_[:, :inputs], type_weights])  # (2 M + T, V + N)
        slopes = self.heads.coef_[:, inputs:].reshape(len(self.heads.coef_), len(self.types), len(NUMBER_NAMES))
        terms_known = len(tfidf.vocabulary_)
        return Predictor(
            models=self.models,
            types=self.types,
            vocabulary={term: int(row) for term, row in tfidf.vocabulary_.items()},
            idf=tfidf.idf_,
            unknown_idf=float(tfidf.idf_.max()),
            table=np.ascontiguousarray(weights[:, :terms_known].T, np.float32),  # a term's weights lie together
            centres=self.centres.words.astype(np.float32),
            number_centres=self.centres.numbers,
            number_precision=self.centres.precision,
            number_mean=scaler.mean_,
            number_scale=scaler.scale_,
            number_weights=weights[:, terms_known:].T * NUMBER_WEIGHT,
            intercept=np.concatenate([self.heads.intercept_, type_intercept]),
            type_slopes=slopes.transpose(1, 0, 2) * SLOPE_WEIGHT,
            type_quality=self.type_quality,
            type_log_length=self.type_log_length,
            type_measured=self.type_measured,
            length_smearing=self.length_smearing,
            novelty_quantiles=self.novelty_quantiles,
        )

    def _type_weights(self) -> tuple[Floats, Floats]:
        """The classifier as one row of weights a type; scikit-learn keeps none for one type and one row for two."""
        types = len(self.types)
        if types == 1:
            return np.zeros((1, self.heads.coef_.shape[1] - len(NUMBER_NAMES))), np.zeros(1)
        if types == 2:
            nothing = np.zeros_like(self.classifier.coef_)
            return np.vstack([nothing, self.classifier.coef_]), np.append(0.0, self.classifier.intercept_)
        return self.classifier.coef_, self.classifier.intercept_


def fit(examples: Examples, models: Sequence[str], seed: int, more: TypeExamples = NO_MORE) -> Fitted:
    """Fit the predictor; how unusual familiar questions look is measured across folds of near-duplicates."""
    everything = [*examples.features, *more.features]
    named = [*examples.types, *more.types]
    types = sorted(set(named))
    inputs = input_union().fit(everything)
    matrix = sp.csr_matrix(inputs.transform(everything))
    known = matrix[: len(examples.types)]
    members = {name: np.array([t == name for t in examples.types]) for name in types}
    logs = _log_lengths(examples)
    means = {name: _shrunken(examples.scores, members[name], examples.scores.mean(axis=0)) for name in types}
    log_means = {name: _shrunken(logs, members[name], np.full(len(models), np.log(UNKNOWN_LENGTH))) for name in types}
    beyond = examples.scores - np.array([means[name] for name in examples.types])
    beyond_logs = logs - np.array([log_means[name] for name in examples.types])
    belongs = np.array([members[name] for name in types], dtype=float).T
    with_slopes = _with_slopes(known, belongs)
    heads = Ridge(RIDGE).fit(with_slopes, np.hstack([beyond, beyond_logs]))
    measured = {name for name, rows in members.items() if rows.sum() >= MIN_TYPE_QUESTIONS}
    return Fitted(
        models=tuple(models),
        types=tuple(types),
        inputs=inputs,
        heads=heads,
        classifier=_classifier(matrix, named),
        type_quality=np.array([means[t] if t in measured else more.quality.get(t, means[t]) for t in types]),
        type_log_length=np.array([log_means[t] for t in types]),
        type_measured=np.array([float(t in measured) for t in types]),
        length_smearing=np.exp(beyond_logs - heads.predict(with_slopes)[:, len(models) :]).mean(axis=0),
        centres=centres_of(matrix, named, types),
        novelty_quantiles=novelty_quantiles(examples, more, types, seed, _roughly),
    )


def _with_slopes(inputs: sp.csr_matrix, types: Floats) -> sp.csr_matrix:
    """The inputs, and the hand features once more for each type, by how much a question is of it (n, T)."""
    hand = inputs[:, -len(NUMBER_NAMES) :].toarray() * (SLOPE_WEIGHT / NUMBER_WEIGHT)
    of_types = (types[:, :, None] * hand[:, None, :]).reshape(len(hand), -1)
    return sp.csr_matrix(sp.hstack([inputs, sp.csr_matrix(of_types)]))


def _log_lengths(examples: Examples) -> Floats:
    """Logs of the answers' lengths (n, M); where a length is unknown, the mean of that model's others."""
    logs = np.log(np.maximum(examples.lengths, 1.0))
    known = ~np.isnan(logs)
    filler = [
        logs[known[:, m], m].mean() if known[:, m].any() else np.log(UNKNOWN_LENGTH) for m in range(logs.shape[1])
    ]
    return np.where(known, logs, filler)


def _shrunken(values: Floats, rows: np.ndarray, prior: Floats) -> Floats:
    """The mean of these rows and of PRIOR_QUESTIONS more that are as `prior` (M,)."""
    return np.asarray((values[rows].sum(axis=0) + PRIOR_QUESTIONS * prior) / (rows.sum() + PRIOR_QUESTIONS))


def _roughly(matrix: sp.csr_matrix, types: Sequence[str]) -> LogisticRegression | DummyClassifier:
    """The classifier in a third of the time; it names another type for 3 % of questions."""
    return _classifier(matrix, types, 1e-3)


def _classifier(
    matrix: sp.csr_matrix, types: Sequence[str], tolerance: float = 1e-4
) -> LogisticRegression | DummyClassifier:
    if len(set(types)) == 1:
        return DummyClassifier().fit(matrix, types)
    # how often a type was asked in a calibration says little of how often users will ask it: half way to balanced
    weights = {name: (len(types) / count) ** 0.5 for name, count in Counter(types).items()}
    estimator = LogisticRegression(C=TYPE_INVERSE_RIDGE, max_iter=500, class_weight=weights, tol=tolerance)
    return estimator.fit(matrix, types)
