"""The policy's pure core: features, prediction, decision, document."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_outcomes import TRUTH, made_outcomes

from calibration.learning import examples_of, learn
from calibration.policies import load_prices, models_named, read_policy, write_policy
from calibration.predictor import fit
from router.policy.decision import Reason, decide
from router.policy.document import DOCUMENT, WEIGHTS, PolicyError, dump, parse
from router.policy.features import MAX_TURN_CHARACTERS, RequestError, read_question
from router.policy.prediction import predict

PAIR = ("gpt-4o-mini", "gpt-4o")


@pytest.fixture(scope="module")
def policy():
    return learn(made_outcomes(1200), models_named(PAIR, load_prices()), seed=0, about={})


def asked(text, **more):
    return read_question([{"role": "user", "content": text}], **more)


LAW = "Question 7: landlord tenant breach clause liability damages notice court appeal contract party statute?"
SUM = "Question 8: apples pears coins add buys sells total left basket market price each?"


def decided(policy, features, target=0.9):
    return decide(policy.rules, features, predict(policy.predictor, features), target)


def test_the_exported_predictor_agrees_with_the_scikit_learn_pipeline_on_made_questions():
    outcomes = made_outcomes(600, seed=3)
    examples = examples_of(outcomes, PAIR)
    fitted = fit(examples, PAIR, seed=0)
    assert_agree(fitted, examples.features)


def test_the_exported_predictor_agrees_with_the_scikit_learn_pipeline_on_a_thousand_real_requests(shared_data):
    from calibration.outcomes import read_outcomes

    outcomes = read_outcomes([shared_data / "calibration.jsonl.gz"], PAIR)[::2]
    real = read_outcomes([shared_data / "test.jsonl.gz"], PAIR)[:1000]
    fitted = fit(examples_of(outcomes, PAIR), PAIR, seed=0)
    assert_agree(fitted, [read_question(o.messages, o.tools) for o in real])


def assert_agree(fitted, features):
    quality, lengths, types = fitted.predict(features)
    predictor = fitted.export()
    plain = [predict(predictor, f) for f in features]
    np.testing.assert_allclose([[p.quality[m] for m in PAIR] for p in plain], quality, rtol=0, atol=1e-6)
    np.testing.assert_allclose([[p.output_tokens[m] for m in PAIR] for p in plain], lengths, rtol=1e-5)
    assert [p.question_type for p in plain] == types


def test_what_is_learnt_is_near_the_truth(policy):
    for name, (cheap, strong) in TRUTH.items():
        quality = policy.rules.evidence[name].quality
        assert quality[PAIR[0]].low <= cheap <= quality[PAIR[0]].high
        assert quality[PAIR[1]].low <= strong <= quality[PAIR[1]].high


def test_an_easy_question_goes_to_the_cheap_model_and_a_hard_one_to_the_strong(policy):
    easy, hard = decided(policy, asked(SUM)), decided(policy, asked(LAW))
    assert (easy.model, easy.reason) == ("gpt-4o-mini", Reason.CHEAP_IS_ENOUGH)
    assert (hard.model, hard.reason) == ("gpt-4o", Reason.STRONG_IS_BETTER)
    assert hard.gap > easy.gap
    assert hard.evidence.n == 300


def test_a_target_that_nothing_was_shown_to_keep_goes_to_the_strong_model(policy):
    assert decided(policy, asked(SUM), target=1.0).reason == Reason.NOT_CERTIFIED
    assert decided(policy, asked(SUM), target=1.0).model == "gpt-4o"


def test_a_question_unlike_all_others_goes_to_the_strong_model_as_novel(policy):
    assert decided(policy, asked("Write me a haiku about frogs, please, in Finnish")).reason == Reason.NOVEL


def test_a_type_without_evidence_goes_to_the_strong_model(policy):
    rules = replace(policy.rules, evidence={})
    features = asked(SUM)
    assert decide(rules, features, predict(policy.predictor, features), 0.9).reason == Reason.NO_EVIDENCE


def test_what_is_of_no_type_for_sure_goes_to_the_strong_model(policy):
    features = asked(SUM)
    prediction = predict(policy.predictor, features)
    assert sum(prediction.type_probabilities.values()) == pytest.approx(1)
    sure = prediction.type_probabilities[prediction.question_type]
    for least, reason in ((sure * 0.99, Reason.CHEAP_IS_ENOUGH), (sure * 1.01, Reason.UNCERTAIN_TYPE)):
        rules = replace(policy.rules, least_type_probability=least)
        assert decide(rules, features, prediction, 0.9).reason == reason


def test_what_may_well_be_of_a_type_without_evidence_goes_to_the_strong_model(policy):
    features = asked(SUM)
    prediction = predict(policy.predictor, features)
    unknown = next(name for name in policy.predictor.types if name != prediction.question_type)
    chance = prediction.type_probabilities[unknown]
    evidence = {name: known for name, known in policy.rules.evidence.items() if name != unknown}
    for limit, reason in ((chance * 1.01, Reason.CHEAP_IS_ENOUGH), (chance * 0.99, Reason.UNCERTAIN_TYPE)):
        rules = replace(policy.rules, evidence=evidence, no_evidence_limit=limit)
        assert decide(rules, features, prediction, 0.9).reason == reason


def test_a_policy_that_was_certified_before_a_guard_existed_runs_without_it(policy):
    files = dump(policy)
    document = json.loads(files[DOCUMENT])
    assert document.pop("least_type_probability") > 0 and document.pop("no_evidence_limit") < 1
    rules = parse(files | {DOCUMENT: json.dumps(document).encode()}).rules
    assert (rules.least_type_probability, rules.no_evidence_limit) == (0, 1)


@pytest.mark.parametrize(
    "name, value", [("no_evidence_limit", 0), ("novelty_limit", 1.1), ("least_type_probability", 2)]
)
def test_a_limit_that_is_no_share_is_refused(policy, name, value):
    files = dump(policy)
    document = json.loads(files[DOCUMENT]) | {name: value}
    with pytest.raises(PolicyError, match=f"{name} is not .*: {value}"):
        parse(files | {DOCUMENT: json.dumps(document).encode()})


def test_what_the_cheap_model_cannot_hold_or_read_goes_to_the_strong_one(policy):
    small = replace(policy.rules.models[0], context_tokens=100)
    blind = replace(policy.rules.models[0], images=False)
    long, seen = (
        asked(SUM + " apples" * 200),
        read_question(
            [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": SUM}, {"type": "image_url", "image_url": {"url": "x"}}],
                }
            ]
        ),
    )
    clumsy = replace(policy.rules.models[0], tools=False)
    offered = read_question([{"role": "user", "content": SUM}], [{"type": "function", "function": {"name": "f"}}])
    for model, features, reason in (
        (small, long, Reason.CONTEXT_WINDOW),
        (blind, seen, Reason.MODALITY),
        (clumsy, offered, Reason.TOOLS),
    ):
        rules = replace(policy.rules, models=(model, policy.rules.models[1]))
        assert decide(rules, features, predict(policy.predictor, features), 0.9).reason == reason


def test_an_image_costs_more_on_the_cheap_model_as_it_is_billed(policy):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}}
    features = read_question([{"role": "user", "content": [{"type": "text", "text": SUM}, image]}])
    costs = decided(policy, features).expected_cost_usd
    assert costs["gpt-4o-mini"] > costs["gpt-4o"]


def test_a_short_word_after_a_hard_question_stays_with_the_strong_model(policy):
    hard = [{"role": "user", "content": LAW}, {"role": "assistant", "content": "It depends."}]
    for word in ("ok, continue", "thanks", SUM):
        conversation = read_question([*hard, {"role": "user", "content": word}])
        assert decided(policy, conversation).model == "gpt-4o"


def test_a_decision_is_the_same_every_time(policy):
    assert decided(policy, asked(LAW)) == decided(policy, asked(LAW))


def test_a_megabyte_of_prompt_is_read_no_further_than_the_cap():
    assert len(asked("word " * 200_000).turns[0]) <= MAX_TURN_CHARACTERS + 1


@pytest.mark.parametrize(
    ("messages", "param"),
    [([], "messages"), ([7], "messages"), ([{"role": "user", "content": 7}], "messages[0].content")],
)
def test_messages_that_cannot_be_read_name_the_field_at_fault(messages, param):
    with pytest.raises(RequestError) as caught:
        read_question(messages)
    assert caught.value.param == param


def test_a_policy_is_the_same_after_writing_and_reading(policy, tmp_path):
    write_policy(policy, tmp_path)
    again = read_policy(tmp_path)
    assert dump(again) == dump(policy)
    assert decided(again, asked(LAW)).quality == decided(policy, asked(LAW)).quality
    assert len(again.version) == 12


@pytest.mark.parametrize("file", [DOCUMENT, WEIGHTS])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\x00" * 50, b'{"format": 1}'])
def test_a_policy_that_does_not_parse_names_the_file(policy, file, content):
    files = {name: c for name, c in (dump(policy) | {file: content}).items() if c is not None}
    with pytest.raises(PolicyError) as caught:
        parse(files)
    assert caught.value.file == file


def test_the_same_outcomes_and_seed_give_the_same_policy_to_the_byte():
    models = models_named(PAIR, load_prices())
    first, second = (learn(made_outcomes(200), models, seed=1, about={}) for _ in range(2))
    assert dump(first) == dump(second)
