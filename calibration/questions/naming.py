"""Question types for questions without one: predicted by a policy, or clusters named by their frequent words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from calibration.questions.questions import Question
from router.policy.document import Policy
from router.policy.features import read_question
from router.policy.prediction import predict

MIN_PROBABILITY = 0.5  # of a predicted type
QUESTIONS_PER_CLUSTER = 25
MAX_CLUSTERS = 12
WORDS_PER_NAME = 2


def name_types(questions: Sequence[Question], policy: Policy | None, seed: int) -> list[Question]:
    """Give each question a type: its own, else the one that `policy` predicts with confidence, else its cluster."""
    named = [_predict_type(q, policy) if policy and not q.question_type else q for q in questions]
    untyped = [number for number, question in enumerate(named) if not question.question_type]
    for number, name in zip(untyped, name_clusters([named[i].text for i in untyped], seed), strict=True):
        named[number] = replace(named[number], question_type=name)
    return named


def _predict_type(question: Question, policy: Policy) -> Question:
    features = read_question(question.messages, question.tools)
    prediction = predict(policy.predictor, features)
    question_type = prediction.question_type
    confident = prediction.type_probabilities[question_type] >= MIN_PROBABILITY
    if not confident or prediction.novelty > policy.rules.novelty_limit:
        return question
    return replace(question, question_type=question_type)


def name_clusters(texts: Sequence[str], seed: int) -> list[str]:
    """Cluster the texts; return the name of each text's cluster, made of the words that distinguish the cluster."""
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    count = min(MAX_CLUSTERS, len(texts) // QUESTIONS_PER_CLUSTER)
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
        distinctive = np.asarray(matrix[labels == label].mean(axis=0)).ravel() - overall
        name = "-".join(str(words[i]) for i in np.argsort(-distinctive)[:WORDS_PER_NAME])
        names[label] = name if name not in names.values() else f"{name}-{label}"
    return [f"cluster/{names[label]}" for label in labels]
