"""Evidence on types without outcomes: their questions, and published results."""

import json
from dataclasses import replace

import pytest
from msgspec import structs
from synthetic_outcomes import synthetic_outcomes

from calibration.learning.learning import learn
from calibration.learning.prior import PSEUDO_OUTCOMES, prior_of_run, read_prior
from calibration.outcomes import InputError
from calibration.policies import load_prices, models_named, read_policy
from router.policy.decision import decide
from router.policy.distribution import SHIPPED
from router.policy.document import PolicyError
from router.policy.features import read_question
from router.policy.prediction import predict, word_weights
from router.policy.reasons import Reason

PAIR = ("gpt-4o-mini", "gpt-4o")


def write_questions(folder):
    """Write files of questions, types and published results; return them by name."""
    verses = [
        f"write a {adjective} verse about {subject}"
        for adjective in ("short", "sad", "funny", "silly")
        for subject in ("frogs", "rain", "tea")
    ]
    labels = [
        f"is this {adjective} happy or angry: {subject}"
        for adjective in ("mail", "note", "letter")
        for subject in ("hurrah", "go away", "hmm", "ok")
    ]
    rows = [{"question_type": "verse", "text": text} for text in verses] + [
        {"question_type": "mood", "question": text} for text in labels
    ]
    published = {
        "benchmark": "B",
        "kind": "accuracy01",
        "scores": {"gpt-4o-mini": 0.9, "gpt-4o": 0.91},
        "source": "a paper",
    }
    table = {"rename": [{"id": "made-0-1*", "as": "law/renamed"}], "published": {"verse": ["B"]}}
    paths = {name: folder / name for name in ("questions", "types", "published")}
    paths["questions"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths["types"].write_text(json.dumps(table))
    paths["published"].write_text(json.dumps([published | {"question_type": "poems"}]))
    return paths


@pytest.fixture
def files(tmp_path):
    return write_questions(tmp_path)


def background_of(files):
    return read_prior([files["questions"]], files["types"], files["published"], PAIR)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    background = background_of(write_questions(tmp_path_factory.mktemp("background")))
    return learn(synthetic_outcomes(400), models_named(PAIR, load_prices()), 0, {}, background).policy


def decide_text(policy, text, target=0.8):
    features = read_question([{"role": "user", "content": text}])
    return decide(policy.rules, features, predict(policy.predictor, features), target)


def test_a_type_is_routed_by_its_published_results_with_that_reason(policy):
    decision = decide_text(policy, "write a silly verse about frogs and rain")
    assert (decision.question_type, decision.model) == ("verse", "gpt-4o-mini")
    assert (decision.evidence.kind, decision.evidence.n) == ("published", PSEUDO_OUTCOMES)
    assert "a paper" in decision.evidence.source


def test_a_question_is_recognised_if_its_type_is_likely_enough(policy):
    features = read_question([{"role": "user", "content": "write a silly verse about frogs and rain"}])
    prediction = predict(policy.predictor, features)
    published = policy.rules.evidence["verse"]
    prediction = structs.replace(prediction, question_type="verse", novelty=0.0)
    rules = replace(policy.rules, evidence={"verse": published, "mood": published})
    for verse, mood, unknown, reason in (
        (0.4, 0.45, 0.15, Reason.CHEAP_IS_ENOUGH),
        (0.25, 0.6, 0.15, Reason.UNCERTAIN_TYPE),
        (0.6, 0.1, 0.3, Reason.UNCERTAIN_TYPE),
    ):
        questions_by_type = {"verse": verse, "mood": mood, "sums": unknown}
        assert (
            decide(rules, features, structs.replace(prediction, type_probabilities=questions_by_type), 0.8).reason
            == reason
        )


def test_a_type_with_questions_but_no_results_goes_to_the_strong_model(policy):
    decision = decide_text(policy, "is this note happy or angry: go away")
    assert (decision.question_type, decision.reason) == ("mood", Reason.NO_EVIDENCE)


def test_the_interval_of_a_published_result_is_as_wide_as_its_pseudo_outcomes(files):
    evidence = background_of(files).evidence["verse"]
    assert evidence.quality_difference.estimate == pytest.approx(-0.01)
    assert evidence.quality_difference.high - evidence.quality_difference.low > 0.2


def test_outcomes_get_the_type_names_of_the_question_set(files):
    renamed = background_of(files).rename_types(synthetic_outcomes(30))
    assert {outcome.question_type for outcome in renamed if outcome.id.startswith("made-0-1")} == {"law/renamed"}
    assert renamed[0].question_type == synthetic_outcomes(1)[0].question_type


def test_the_error_of_an_unpublished_benchmark_names_the_file(files):
    files["types"].write_text(json.dumps({"published": {"verse": ["no such benchmark"]}}))
    with pytest.raises(InputError, match=r"types: .*no such benchmark"):
        background_of(files)


def test_the_words_that_weighed_most_are_those_of_the_question(files):
    policy = learn(synthetic_outcomes(400), models_named(PAIR, load_prices()), 0, {}).policy
    question = "Question 5: landlord tenant breach clause liability court appeal?"
    of_type, of_gap = word_weights(policy.predictor, read_question([{"role": "user", "content": question}]))
    assert set(of_type) | set(of_gap) <= set(policy.predictor.vocabulary.rows)
    assert max(of_type.values()) > 0
    assert any(word in question for word in of_gap)


def test_a_calibration_keeps_the_shipped_evidence_of_other_types(tmp_path):
    shipped = read_policy(SHIPPED)
    known = prior_of_run({"prior": shipped.version}, PAIR)
    assert known is not None and known.evidence["math/grade-school"].kind == "published"
    assert known.evidence["math/grade-school"].n == 30 and shipped.version in known.evidence["math/grade-school"].source
    policy = learn(synthetic_outcomes(300), models_named(PAIR, load_prices()), 0, {}, known).policy
    assert policy.rules.evidence["facts/software"] == known.evidence["facts/software"]
    assert {evidence.kind for name, evidence in policy.rules.evidence.items() if name not in known.evidence} == {
        "measured"
    }
    decision = decide_text(policy, "What is dependency injection and why do people use it?")
    assert (decision.question_type, decision.evidence.kind) == ("facts/software", "published")
    assert prior_of_run({"prior": shipped.version}, ("small", "large")).evidence == {}
    assert prior_of_run({}, PAIR) is None
    with pytest.raises(PolicyError, match="the prior of the calibration had version 0123"):
        prior_of_run({"prior": "0123"}, PAIR)
