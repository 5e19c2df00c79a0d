"""Types for questions that have none: predicted by a policy, or clustered and named by their words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from calibration.questions.questions import Question
from router.policy.document import Policy
from router.policy.features import read_question
from router.policy.prediction import predict

SURE = 0.5  # probability of a type below which a question counts as untyped
QUESTIONS_PER_CLUSTER = 25
MOST_CLUSTERS = 12
NAME_WORDS = 2


def name_types(questions: Sequence[Question], policy: Policy | None, seed: int) -> list[Question]:
    """The questions, each with a type: its own, else the one that `policy` is sure of, else its cluster's."""
    named = [_predicted(q, policy) if policy and not q.question_type else q for q in questions]
    untyped = [number for number, question in enumerate(named) if not question.question_type]
    for number, name in zip(untyped, clusters([named[i].text for i in untyped], seed), strict=True):
        named[number] = replace(named[number], question_type=name)
    return named


def _predicted(question: Question, policy: Policy) -> Question:
    features = read_question(question.messages, question.tools)
    found = predict(policy.predictor, features)
    known = found.type_probabilities[found.question_type] >= SURE and found.novelty <= policy.rules.novelty_limit
    return replace(question, question_type=found.question_type) if known else question


def clusters(texts: Sequence[str], seed: int) -> list[str]:
    """A name for each text's cluster: the words that set the cluster apart."""
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    count = min(MOST_CLUSTERS, len(texts) // QUESTIONS_PER_CLUSTER)
    if count < 2:
        return ["untyped"] * len(texts)
    vectorizer = TfidfVectorizer(stop_words="english", min_df=2, max_features=5000, sublinear_tf=True)
    try:
        matrix = vectorizer.fit_transform(texts)
    except ValueError:  # no word occurs twice
        return ["untyped"] * len(texts)
    labels = KMeans(count, n_init=4, random_state=seed).fit_predict(matrix)
    words = vectorizer.get_feature_names_out()
    overall = np.asarray(matrix.mean(axis=0)).ravel()
    names: dict[int, str] = {}
    for label in range(count):
        apart = np.asarray(matrix[labels == label].mean(axis=0)).ravel() - overall
        name = "-".join(str(words[i]) for i in np.argsort(-apart)[:NAME_WORDS])
        names[label] = name if name not in names.values() else f"{name}-{label}"
    return [f"cluster/{names[label]}" for label in labels]
