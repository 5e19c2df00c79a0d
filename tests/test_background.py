"""What is known of types without outcomes: their questions, and what others published."""

import json
from dataclasses import replace

import pytest
from made_outcomes import made_outcomes
from msgspec import structs

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


def written(folder):
    """The files of questions, of types and of published results, by name."""
    verses = [
        f"write a {a} verse about {b}" for a in ("short", "sad", "funny", "silly") for b in ("frogs", "rain", "tea")
    ]
    labels = [
        f"is this {a} happy or angry: {b}"
        for a in ("mail", "note", "letter")
        for b in ("hurrah", "go away", "hmm", "ok")
    ]
    rows = [{"question_type": "verse", "text": t} for t in verses] + [
        {"question_type": "mood", "question": t} for t in labels
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
    return written(tmp_path)


def background_of(files):
    return read_prior([files["questions"]], files["types"], files["published"], PAIR)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    background = background_of(written(tmp_path_factory.mktemp("background")))
    return learn(made_outcomes(400), models_named(PAIR, load_prices()), 0, {}, background).policy


def decided(policy, text, target=0.8):
    features = read_question([{"role": "user", "content": text}])
    return decide(policy.rules, features, predict(policy.predictor, features), target)


def test_a_type_with_published_results_is_routed_on_them_and_says_so(policy):
    decision = decided(policy, "write a silly verse about frogs and rain")
    assert (decision.question_type, decision.model) == ("verse", "gpt-4o-mini")
    assert (decision.evidence.kind, decision.evidence.n) == ("published", PSEUDO_OUTCOMES)
    assert "a paper" in decision.evidence.source


def test_a_question_is_recognised_where_its_own_type_is_likely_enough(policy):
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
        of = {"verse": verse, "mood": mood, "sums": unknown}
        assert decide(rules, features, structs.replace(prediction, type_probabilities=of), 0.8).reason == reason


def test_a_type_that_is_known_by_its_questions_alone_goes_to_the_strong_model(policy):
    decision = decided(policy, "is this note happy or angry: go away")
    assert (decision.question_type, decision.reason) == ("mood", Reason.NO_EVIDENCE)


def test_a_published_result_is_never_narrower_than_its_few_pseudo_outcomes(files):
    evidence = background_of(files).evidence["verse"]
    assert evidence.quality_difference.estimate == pytest.approx(-0.01)
    assert evidence.quality_difference.high - evidence.quality_difference.low > 0.2


def test_outcomes_get_the_type_names_of_the_question_set(files):
    renamed = background_of(files).rename_types(made_outcomes(30))
    assert {o.question_type for o in renamed if o.id.startswith("made-0-1")} == {"law/renamed"}
    assert renamed[0].question_type == made_outcomes(1)[0].question_type


def test_a_benchmark_that_is_not_published_is_an_error_with_the_file(files):
    files["types"].write_text(json.dumps({"published": {"verse": ["no such benchmark"]}}))
    with pytest.raises(InputError, match=r"types: .*no such benchmark"):
        background_of(files)


def test_the_words_that_weighed_most_are_those_of_the_question(files):
    policy = learn(made_outcomes(400), models_named(PAIR, load_prices()), 0, {}).policy
    question = "Question 5: landlord tenant breach clause liability court appeal?"
    of_type, of_gap = word_weights(policy.predictor, read_question([{"role": "user", "content": question}]))
    assert set(of_type) | set(of_gap) <= set(policy.predictor.vocabulary.rows)
    assert max(of_type.values()) > 0
    assert any(word in question for word in of_gap)


def test_a_calibration_keeps_what_the_shipped_policy_knows_of_types_it_did_not_ask(tmp_path):
    shipped = read_policy(SHIPPED)
    known = prior_of_run({"prior": shipped.version}, PAIR)
    assert known is not None and known.evidence["math/grade-school"].kind == "published"
    assert known.evidence["math/grade-school"].n == 30 and shipped.version in known.evidence["math/grade-school"].source
    policy = learn(made_outcomes(300), models_named(PAIR, load_prices()), 0, {}, known).policy
    assert policy.rules.evidence["facts/software"] == known.evidence["facts/software"]
    assert {e.kind for name, e in policy.rules.evidence.items() if name not in known.evidence} == {"measured"}
    decision = decided(policy, "What is dependency injection and why do people use it?")
    assert (decision.question_type, decision.evidence.kind) == ("facts/software", "published")
    assert prior_of_run({"prior": shipped.version}, ("small", "large")).evidence == {}
    assert prior_of_run({}, PAIR) is None
    with pytest.raises(PolicyError, match="the prior of the calibration had version 0123"):
        prior_of_run({"prior": "0123"}, PAIR)
