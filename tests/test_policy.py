"""The policy: features, prediction, decision, and files."""

import io
import json
import random
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from synthetic_outcomes import TRUTH, synthetic_outcomes

from calibration.learning.learning import learn
from calibration.policies import load_prices, models_named, read_policy, write_policy
from router.policy.decision import decide
from router.policy.document import DOCUMENT, WEIGHTS, PolicyError, dump, parse
from router.policy.expected_cost import expected_cost_usd, savings_usd
from router.policy.features import MAX_TURN_CHARACTERS, RequestError, read_question
from router.policy.prediction import predict
from router.policy.prices import Price
from router.policy.reasons import Reason
from router.policy.rules import Model
from router.policy.sections import _LABEL, _may_be_label

PAIR = ("gpt-4o-mini", "gpt-4o")


@pytest.fixture(scope="module")
def policy():
    return learn(synthetic_outcomes(1200), models_named(PAIR, load_prices()), seed=0, about={}).policy


def read_text(text, **more):
    return read_question([{"role": "user", "content": text}], **more)


LAW = "Question 7: landlord tenant breach clause liability damages notice court appeal contract party statute?"
SUM = "Question 8: apples pears coins add buys sells total left basket market price each?"


def decide_features(policy, features, target=0.9):
    return decide(policy.rules, features, predict(policy.predictor, features), target)


def test_learnt_qualities_are_close_to_the_true_ones(policy):
    for name, (cheap, strong) in TRUTH.items():
        quality = policy.rules.evidence[name].quality
        assert quality[PAIR[0]].low <= cheap <= quality[PAIR[0]].high
        assert quality[PAIR[1]].low <= strong <= quality[PAIR[1]].high


def test_easy_questions_go_to_the_cheap_model_and_hard_ones_to_the_strong_model(policy):
    easy, hard = decide_features(policy, read_text(SUM)), decide_features(policy, read_text(LAW))
    assert (easy.model, easy.reason) == ("gpt-4o-mini", Reason.CHEAP_IS_ENOUGH)
    assert (hard.model, hard.reason) == ("gpt-4o", Reason.STRONG_IS_BETTER)
    assert hard.gap > easy.gap
    assert hard.evidence.n == 300


def test_a_target_without_a_threshold_goes_to_the_strong_model(policy):
    assert decide_features(policy, read_text(SUM), target=1.0).reason == Reason.NOT_CERTIFIED
    assert decide_features(policy, read_text(SUM), target=1.0).model == "gpt-4o"


def test_a_novel_question_goes_to_the_strong_model(policy):
    decision = decide_features(policy, read_text("Write me a haiku about frogs, please, in Finnish"))
    assert (decision.model, decision.reason) == ("gpt-4o", Reason.NOVEL)


def test_a_type_without_evidence_goes_to_the_strong_model(policy):
    rules = replace(policy.rules, evidence={})
    features = read_text(SUM)
    assert decide(rules, features, predict(policy.predictor, features), 0.9).reason == Reason.NO_EVIDENCE


def test_doubt_about_the_type_adds_to_the_strong_models_quality(policy):
    features = read_text(SUM)
    prediction = predict(policy.predictor, features)
    assert sum(prediction.type_probabilities.values()) == pytest.approx(1)
    assert decide(policy.rules, features, prediction, 0.9).model == "gpt-4o-mini"
    torn = structs.replace(prediction, doubt={"gpt-4o-mini": 5.0, "gpt-4o": 0.0})
    assert decide(policy.rules, features, torn, 0.9).model == "gpt-4o"


def test_a_saving_counts_in_proportion_to_the_types_probability_and_less_for_novel_questions(policy):
    features = read_text(SUM)
    prediction = structs.replace(predict(policy.predictor, features), novelty=0.0)
    probability = prediction.type_probabilities[prediction.question_type]
    rules = replace(policy.rules, usual_type_probability=probability, familiar_until=0.8)

    def saved(rules, novelty=0.0):
        return savings_usd(rules, features, structs.replace(prediction, novelty=novelty), None)["gpt-4o-mini"]

    assert saved(replace(rules, usual_type_probability=4 * probability)) == pytest.approx(saved(rules) / 4)
    assert saved(replace(rules, usual_type_probability=probability / 4)) == saved(rules)
    assert saved(rules, novelty=0.8) == saved(rules)
    assert saved(rules, novelty=0.9) == pytest.approx(saved(rules) / 2)


def test_a_question_probably_of_a_type_without_evidence_goes_to_the_strong_model(policy):
    features = read_text(SUM)
    prediction = predict(policy.predictor, features)
    unknown = next(name for name in policy.predictor.types if name != prediction.question_type)
    chance = prediction.type_probabilities[unknown]
    evidence = {name: known for name, known in policy.rules.evidence.items() if name != unknown}
    for limit, reason in ((chance * 1.01, Reason.CHEAP_IS_ENOUGH), (chance * 0.99, Reason.UNCERTAIN_TYPE)):
        rules = replace(policy.rules, evidence=evidence, no_evidence_limit=limit)
        assert decide(rules, features, prediction, 0.9).reason == reason


def test_a_policy_of_an_older_format_is_refused_and_the_supported_format_is_named(policy):
    files = dump(policy)
    document = json.loads(files[DOCUMENT]) | {"format": 1}
    with pytest.raises(PolicyError, match="has format 1; this version reads format 2"):
        parse(files | {DOCUMENT: json.dumps(document).encode()})


@pytest.mark.parametrize(
    "name, value",
    [("no_evidence_limit", 0), ("novelty_limit", 1.1), ("least_type_probability", 2), ("caution", -1)],
)
def test_a_limit_outside_of_0_to_1_is_refused(policy, name, value):
    files = dump(policy)
    document = json.loads(files[DOCUMENT]) | {name: value}
    with pytest.raises(PolicyError, match=f"{name} must be .*: {value}"):
        parse(files | {DOCUMENT: json.dumps(document).encode()})


def test_requests_beyond_the_cheap_models_capabilities_go_to_the_strong_model(policy):
    small = replace(policy.rules.models[0], context_tokens=100)
    blind = replace(policy.rules.models[0], images=False)
    long, image_request = (
        read_text(SUM + " apples" * 200),
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
        (blind, image_request, Reason.MODALITY),
        (clumsy, offered, Reason.TOOLS),
    ):
        rules = replace(policy.rules, models=(model, policy.rules.models[1]))
        assert decide(rules, features, predict(policy.predictor, features), 0.9).reason == reason


def test_an_image_costs_more_on_the_cheap_model_as_it_is_billed(policy):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}}
    features = read_question([{"role": "user", "content": [{"type": "text", "text": SUM}, image]}])
    costs = decide_features(policy, features).expected_cost_usd
    assert costs["gpt-4o-mini"] > costs["gpt-4o"]


def test_a_follow_up_turn_continues_the_question_before_it(policy):
    for before, model in ((LAW, "gpt-4o"), (SUM, "gpt-4o-mini")):
        for word in ("ok, continue", "thanks", "Why is that?"):
            history = [{"role": "user", "content": before}, {"role": "assistant", "content": "It depends."}]
            decision = decide_features(policy, read_question([*history, {"role": "user", "content": word}]))
            assert (decision.model, decision.parts.question) == (model, before.partition(": ")[2])


def test_an_earlier_question_on_another_subject_does_not_change_the_decision(policy):
    hard = [{"role": "user", "content": LAW}, {"role": "assistant", "content": "It depends."}]
    assert decide_features(policy, read_question([*hard, {"role": "user", "content": SUM}])).model == "gpt-4o-mini"


def long_conversation(policy, first):
    """A decision close to the threshold in a long conversation that begins with `first`."""
    history = [{"role": "user", "content": first}, {"role": "assistant", "content": "word " * 8000}]
    return read_question([*history, {"role": "user", "content": SUM}])


def test_a_cached_conversation_lowers_the_expected_cost_and_decides_close_cases(policy):
    after_hard, after_easy = (long_conversation(policy, first) for first in (LAW, SUM))
    hard, easy = decide_features(policy, after_hard), decide_features(policy, after_easy)
    assert (hard.cached_model, easy.cached_model) == ("gpt-4o", "gpt-4o-mini")
    assert hard.expected_cost_usd["gpt-4o"] < easy.expected_cost_usd["gpt-4o"]
    assert hard.expected_cost_usd["gpt-4o-mini"] > easy.expected_cost_usd["gpt-4o-mini"]
    needed = []
    for features in (after_hard, after_easy):
        prediction = predict(policy.predictor, features)
        cached = decide(policy.rules, features, prediction, 0.9).cached_model
        needed.append(1 / savings_usd(policy.rules, features, prediction, cached)["gpt-4o-mini"])
    assert (
        needed[0] > needed[1]
    )  # switching from the strong model requires a larger saving than staying with the cheap one


def test_a_long_prompt_alone_does_not_change_the_decision(policy):
    for text in (SUM, LAW):
        system = {"role": "system", "content": "Be brief. " * 2000}
        prompt_only, prompt_with_system = (
            decide_features(policy, read_question([*before, {"role": "user", "content": text}]))
            for before in ([], [system])
        )
        assert prompt_with_system.model == prompt_only.model
        assert prompt_with_system.quality == prompt_only.quality
        assert prompt_with_system.expected_cost_usd["gpt-4o"] > prompt_only.expected_cost_usd["gpt-4o"]


def test_decisions_are_deterministic(policy):
    assert decide_features(policy, read_text(LAW)) == decide_features(policy, read_text(LAW))


def test_a_prompt_of_a_megabyte_is_truncated():
    assert len(read_text("word " * 200_000).turns[0]) <= MAX_TURN_CHARACTERS + 1


@pytest.mark.parametrize(
    ("messages", "param"),
    [([], "messages"), ([7], "messages"), ([{"role": "user", "content": 7}], "messages[0].content")],
)
def test_errors_about_messages_name_the_invalid_field(messages, param):
    with pytest.raises(RequestError) as error:
        read_question(messages)
    assert error.value.param == param


@given(st.lists(st.sampled_from([*"#*<[({=- :])}>", "Context", "question", "A", " 12", "x" * 40])).map("".join))
def test_a_line_without_the_marks_of_a_label_has_no_label(line):
    label = _LABEL.match(line)
    if label is None or _may_be_label(line):
        return
    before, _, after, colon = label.groups()
    assert not colon and (line[label.end() :] or not (before.strip() or after.strip()))


def test_a_policy_round_trips_through_its_files(policy, tmp_path):
    write_policy(policy, tmp_path)
    again = read_policy(tmp_path)
    assert dump(again) == dump(policy)
    quality = decide_features(policy, read_text(LAW)).quality
    assert decide_features(again, read_text(LAW)).quality == pytest.approx(quality)  # compiled now
    assert len(again.version) == 12


@pytest.mark.parametrize("file", [DOCUMENT, WEIGHTS])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\x00" * 50, b'{"format": 1}'])
def test_an_invalid_policy_names_the_file(policy, file, content):
    files = {name: data for name, data in (dump(policy) | {file: content}).items() if data is not None}
    with pytest.raises(PolicyError) as error:
        parse(files)
    assert error.value.file == file


def test_equal_outcomes_and_seeds_give_identical_policy_files():
    models = models_named(PAIR, load_prices())
    first, second = (learn(synthetic_outcomes(200), models, seed=1, about={}).policy for _ in range(2))
    assert dump(first) == dump(second)


def test_a_damaged_policy_is_refused_or_still_decides(policy):
    files, rng, parsed_count = dump(policy), random.Random(0), 0
    for name in (DOCUMENT, WEIGHTS) * 40:
        damaged = bytearray(files[name])
        for _ in range(rng.choice((1, 3))):
            position = rng.randrange(min(len(damaged), 2000)) * rng.choice((1, -1))
            damaged[position] = rng.randrange(256)
        try:
            policy_read = parse(files | {name: bytes(damaged[: rng.choice((len(damaged), len(damaged) // 2))])})
        except PolicyError as error:
            parsed_count += error.file in (DOCUMENT, WEIGHTS)
        else:
            features = read_text(SUM)
            assert decide(policy_read.rules, features, predict(policy_read.predictor, features), 0.97).model in PAIR
    assert parsed_count > 40


@pytest.mark.parametrize("error", [zlib.error, RuntimeError, NotImplementedError, MemoryError])
def test_any_error_in_an_archive_becomes_a_policy_error(policy, monkeypatch, error):
    def load(*_, **__):
        raise error("no")

    monkeypatch.setattr(np, "load", load)
    with pytest.raises(PolicyError, match=r"weights\.npz: does not parse"):
        parse(dump(policy))


def test_weights_without_any_quantile_are_refused(policy):
    empty = replace(policy.predictor, familiarity_quantiles=np.zeros(0))
    with pytest.raises(PolicyError, match="familiarity_quantiles"):
        parse(dump(replace(policy, predictor=empty)))


def test_evidence_without_a_model_of_the_policy_is_refused(policy):
    files = dump(policy)
    document = json.loads(files[DOCUMENT])
    name = next(iter(document["evidence"]))
    del document["evidence"][name]["quality"]["gpt-4o"]
    with pytest.raises(PolicyError, match=f"evidence of {name} lacks a model"):
        parse(files | {DOCUMENT: json.dumps(document).encode()})


def test_weights_with_a_member_other_than_an_array_are_refused(policy):
    files = dump(policy)
    archive = io.BytesIO(files[WEIGHTS])
    with zipfile.ZipFile(archive) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    members["familiarity_quantiles.npy"] = b"\0" + members["familiarity_quantiles.npy"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as damaged:
        for name, content in members.items():
            damaged.writestr(name, content)
    with pytest.raises(PolicyError, match=r"weights\.npz: familiarity_quantiles is not an array"):
        parse(files | {WEIGHTS: archive.getvalue()})


@pytest.mark.parametrize(
    ("name", "value"),
    [("type_sharpness", 1e308), ("type_sharpness", -1.0), ("table", -1e30), ("idf", 1e200), ("length_smearing", 1e300)],
)
def test_weights_too_large_for_finite_sums_are_refused(policy, name, value):
    old = policy.predictor
    if name == "type_sharpness":
        predictor = replace(old, type_sharpness=value)
    elif name == "idf":
        vocabulary = replace(old.vocabulary, idf=np.full_like(old.vocabulary.idf, value))
        predictor = replace(old, vocabulary=vocabulary)
    else:
        predictor = replace(old, **{name: np.full_like(getattr(old, name), value)})
    with pytest.raises(PolicyError, match=rf"weights\.npz: .*{name}"):
        parse(dump(replace(policy, predictor=predictor)))


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_scale_of_zero_is_refused(policy, scale):
    predictor = replace(policy.predictor, number_scale=np.full_like(policy.predictor.number_scale, scale))
    with pytest.raises(PolicyError, match=r"weights\.npz: .*number_scale"):
        parse(dump(replace(policy, predictor=predictor)))


def test_long_prompts_include_the_price_of_cache_writes_if_the_model_has_one(policy):
    price = Price(2.0, 10.0, 0.2, usd_per_million_cache_write_tokens=2.5)
    with_writes, without = Model("new", price), Model("old", replace(price, usd_per_million_cache_write_tokens=None))
    features = read_question([{"role": "user", "content": "word " * 4000}])
    prediction = predict(policy.predictor, features)
    prediction = structs.replace(prediction, output_tokens={"new": 1.0, "old": 1.0})
    tokens = features.input_tokens
    assert expected_cost_usd(with_writes, features, prediction) == pytest.approx((tokens * 2.5 + 10.0) / 1e6, rel=0.01)
    assert expected_cost_usd(without, features, prediction) == pytest.approx((tokens * 2.0 + 10.0) / 1e6, rel=0.01)
