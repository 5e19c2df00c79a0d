"""Arrays of learning: they hold, to the last digit, what the proxy computes from a question's text."""

import numpy as np
import pytest
from msgspec import structs
from synthetic_outcomes import synthetic_outcomes

from calibration.learning import predictions
from calibration.learning.corpus import Questions, question_of, read_corpus
from calibration.learning.examples import Vectorizer, read_features
from calibration.learning.learning import build_examples
from calibration.learning.predictions import Fold, Predictions, predict_fold
from calibration.learning.predictor import fit, type_quality
from calibration.outcomes import Outcome, Result
from calibration.workers import IN_PROCESS
from router.policy.conversation import Turn
from router.policy.decision import NO_QUESTION
from router.policy.features import encode_question
from router.policy.prediction import predict

PAIR = ("gpt-4o-mini", "gpt-4o")


def material_outcomes():
    """Outcomes with material; that of the last one has no term of any question."""
    passages = ["the river of the country is the longest on its continent " * 9] * 4 + ["zzyzx " * 100]
    texts = [f"Context:\n{passage}\n\nQuestion: largest city of country {at}?" for at, passage in enumerate(passages)]
    results = {model: Result(1.0, None, 40, 60) for model in PAIR}
    return [Outcome(f"m-{at}", [{"role": "user", "content": text}], results, "facts") for at, text in enumerate(texts)]


def test_vectors_equal_those_of_the_proxy():
    questions = read_features([*synthetic_outcomes(60), *material_outcomes()])
    corpus = read_corpus(questions, IN_PROCESS)
    vectorizer = Vectorizer.fit(corpus)
    vectors = vectorizer.transform(corpus)
    terms = len(vectorizer.vocabulary.rows)
    assert corpus.has_material.sum() == 5
    for row, features in enumerate(questions):
        words = vectorizer.vocabulary.weigh(question_of(features).asked)
        entries = slice(*vectors.indptr[row : row + 2])
        is_term = vectors.indices[entries] < terms
        assert vectors.indices[entries][is_term].tolist() == words.rows.tolist()
        assert vectors.data[entries][is_term].tolist() == words.weights.tolist()


@pytest.fixture(scope="module")
def examples():
    return build_examples(synthetic_outcomes(80), PAIR)


def conversation(text):
    """A conversation whose later turns have a prompt that may be cached."""
    long = [{"role": "user", "content": text}, {"role": "assistant", "content": "an answer " * 500}]
    return encode_question([*long, {"role": "user", "content": "Which river is the longest in the country?"}])


def as_stored(prediction, types):
    """The prediction without texts, with a probability of each type."""
    turn = prediction.turn
    return structs.replace(
        prediction,
        turn=Turn(NO_QUESTION, turn.tokens_before, turn.tokens),
        type_probabilities={name: prediction.type_probabilities.get(name, 0.0) for name in types},
        earlier=tuple(as_stored(earlier, types) for earlier in prediction.earlier),
    )


def test_stored_predictions_equal_those_of_the_proxy_without_texts(examples, monkeypatch):
    monkeypatch.setattr(predictions, "PART_ROWS", 7)
    predictor = fit(examples, PAIR)
    bodies = list(examples.features.bodies)
    bodies[3], bodies[11] = conversation("How many apples are left?"), conversation("Who is liable for damages?")
    questions, n = Questions(bodies), len(bodies)
    types = ["a type of another fold", *predictor.types]
    means = type_quality(examples, predictor.types)
    parts = []
    for rows in (np.arange(1, n, 2), np.arange(0, n, 2)):
        fold = Fold(predictor, means, rows, np.full(len(rows), -1), np.zeros((len(rows), 2)))
        parts.append((rows, predict_fold(questions, types, fold, IN_PROCESS)))
    stored = Predictions.join(PAIR, types, parts)
    assert [len(prediction.earlier) for prediction in stored][3:12] == [1, *[0] * 7, 1]
    assert list(stored) == [as_stored(predict(predictor, features), types) for features in questions]


def test_another_novelty_replaces_that_of_the_current_turn_only(examples):
    predictor = fit(examples, PAIR)
    questions = Questions([conversation("How many apples are left?"), *examples.features.bodies[:2]])
    fold = Fold(predictor, predictor.type_quality, np.arange(3), np.full(3, -1), np.zeros((3, 2)))
    stored = Predictions.join(
        PAIR, predictor.types, [(fold.rows, predict_fold(questions, predictor.types, fold, IN_PROCESS))]
    )
    changed = stored.with_novelty(np.array([0.25, 0.5, 0.75]))
    assert [prediction.novelty for prediction in changed] == [0.25, 0.5, 0.75]
    assert changed[0].earlier == stored[0].earlier
    assert [p.novelty for p in stored] == [predict(predictor, features).novelty for features in questions]
