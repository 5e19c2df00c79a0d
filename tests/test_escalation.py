"""Answer rules: the features of answers, which types use them, and the cascade of a policy."""

import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from command_line import run

from calibration.learning.escalation import (
    CHEAP,
    CHEAP_THEN_STRONG,
    STRONG,
    AnswerInputs,
    learn_answer_rules,
    replay_cascade,
    select_types,
)
from calibration.learning.learning import learn
from calibration.learning.ranking import apgr
from calibration.learning.replay import replay_outcomes
from calibration.outcomes import Outcome, Result, write_outcomes
from calibration.policies import DATA, load_prices, models_named, read_policy, write_policy
from router.policy.answer_document import ANSWER_FILES, ANSWER_WEIGHTS, ANSWERS
from router.policy.answer_features import FEATURE_NAMES, compute_features
from router.policy.answers import accepts_answer, decide_first_step
from router.policy.decision import decide
from router.policy.document import PolicyError, dump, parse
from router.policy.features import read_question
from router.policy.prediction import predict
from router.policy.program import evaluate_program, matches_value
from router.policy.transfer import transfer_policy

PAIR = ("gpt-4o-mini", "gpt-4o")
TARGET = 0.97


def make_outcomes(n: int, seed: int = 0) -> list[Outcome]:
    """Outcomes of sums, whose wrong answers contradict their steps, and of choices with single letters."""
    rng = np.random.default_rng(seed)
    outcomes = []
    for i in range(n):
        left, b = (int(value) for value in rng.integers(10, 99, 2))
        is_sum, correct = i % 2 == 0, float(rng.random() < 0.75)
        if is_sum:
            text = f"Basket {i} holds {left} apples and {b} pears. How many pieces of fruit are in the basket in all?"
            values = left + b if correct else left + b + int(rng.integers(1, 9))
            answer = f"We add apples and pears: {left} + {b} = {left + b}. The answer is {values}."
        else:
            text = f"Patient {left} of ward {b} has fever and a cough. Which diagnosis fits, A, B, C or D? Case {i}."
            answer = str(rng.choice(list("ABCD")))
        results = {
            PAIR[0]: Result(correct, answer, 60, 40 if is_sum else 2),
            PAIR[1]: Result(float(rng.random() < 0.97), answer, 60, 40 if is_sum else 2),
        }
        message = {"role": "user", "content": text}
        outcomes.append(Outcome(f"made-{i}", [message], results, "sums/baskets" if is_sum else "medical/choices"))
    return outcomes


@pytest.fixture(scope="module")
def learning():
    return learn(make_outcomes(500), models_named(PAIR, load_prices()), 0, {}, targets=(0.9, TARGET))


@pytest.fixture(scope="module")
def policy(learning):
    answers = learn_answer_rules(learning, 0)
    return parse(dump(replace(learning.policy, answers=answers)))


def numbers(question, answer, tools=()):
    return dict(zip(FEATURE_NAMES, compute_features(question, answer, 50.0, tools), strict=True))


def test_an_answer_that_contradicts_its_steps_is_detected():
    correct, incorrect = numbers("?", "3 * 4 = 12. The answer is 12."), numbers("?", "3 * 4 = 12. The answer is 14.")
    assert (correct["final_is_last_number"], incorrect["final_is_last_number"]) == (1.0, 0.0)
    assert numbers("?", "3 * 4 = 13. The answer is 13.")["sums_wrong"] == 1.0


@pytest.mark.parametrize(("answer", "holds"), [("9.9", True), ("9.11", False)])
def test_the_larger_of_two_numbers_is_computed(answer, holds):
    values = numbers("Which is larger, 9.11 or 9.9?", f'{{"answer": "{answer}"}}')
    assert (values["order_holds"], values["order_broken"]) == (float(holds), float(not holds))


def test_a_tool_call_in_either_format_is_compared_with_the_question():
    for call in (
        {"name": "weather", "arguments": {"city": "Oslo", "days": 3}},
        {"weather": '{"city":"Oslo","days":3}'},
    ):
        answer = numbers("The weather in Oslo?", json.dumps([call]), ("weather city days",))
        assert (answer["calls"], answer["values_in_question"], answer["prose_for_call"]) == (1.0, 0.5, 0.0)
    assert numbers("The weather in Oslo?", "It rains.", ("weather",))["prose_for_call"] == 1.0


@pytest.mark.parametrize(
    ("program", "value"),
    [
        ("def f(s):\n    return ''.join(c for c in s if c != 'a')\nassert f('banana') == ??", "bnn"),
        (
            "def f(d):\n    d.pop('x')\n    return {k: v + 1 for k, v in d.items()}\nassert f({'x': 1, 'y': 2}) == ??",
            {"y": 3},
        ),
        ("def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nassert f(5) == ??", 120),
        (
            "def f(xs):\n    a, *b = xs\n    return a\nassert f([1]) == ??",
            None,
        ),  # the result of an uninterpreted program is unknown
        ("def f(x):\n    return x.__class__\nassert f(1) == ??", None),
        ("def f(x):\n    return open('/etc/passwd')\nassert f(1) == ??", None),
        ("def f(x):\n    return 'a' * 10**9\nassert f(1) == ??", None),
        ("def f(x):\n    while True:\n        x.append(x)\nassert f([]) == ??", None),
        ("def f(x):\n    return f(x)\nassert f([]) == ??", None),
        ("def f(x):\n    return round(x, -1000000000)\nassert f(5) == ??", None),
        ("def f(x):\n    return x.expandtabs(tabsize=10**9)\nassert f('\\t') == ??", None),
        ("def f(x):\n    g = round\n    return list(map(g, x))\nassert f([5]) == ??", None),
        ("def f(x):\n    return '%1000000000d' % x\nassert f(1) == ??", None),
    ],
)
def test_small_programs_are_interpreted_and_hostile_ones_are_not(program, value):
    answer = evaluate_program(program)
    assert answer == (None if value is None else (value,))
    assert value is None or matches_value(value, repr(value))


def test_parsing_in_threads_does_not_change_warning_filters():
    question = "What is printed?\n```python\nprint('\\d')\n```"
    evaluate_program(question)  # sets the only permanent filter
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        values = list(threads.map(evaluate_program, [question] * 2_000))
    assert values == [("\\d",)] * 2_000 and warnings.filters == before


def test_answers_are_used_for_types_whose_answers_are_informative(policy):
    assert set(policy.answers.types) == {"sums/baskets"}
    rule = policy.answers.rules(policy.rules).rule_for(TARGET)
    assert rule.certified and rule.answer_limit == rule.quality_per_usd
    assert rule.expected_saving.estimate > policy.rules.targets[-1].expected_saving.estimate + 0.1


def test_the_command_learns_answer_rules_and_prints_their_types(tmp_path):
    write_outcomes(make_outcomes(200), tmp_path / "outcomes.jsonl")
    result = run("calibration", "learn", "--outcomes", tmp_path / "outcomes.jsonl", "--out", tmp_path / "policy")
    assert result.returncode == 0 and "answer verification pays on: sums/baskets" in result.stdout, result.stderr
    assert all((tmp_path / "policy" / name).is_file() for name in ANSWER_FILES)


def test_the_replay_decides_as_the_proxy_and_counts_both_calls(policy):
    outcomes = make_outcomes(200, seed=1)
    replay = replay_outcomes(outcomes, policy.predictor, policy.rules.models)
    cascade = replay_cascade(policy, policy.answers, replay)
    assert apgr(cascade.gaps, replay.scores) > apgr(replay.gaps, replay.scores) + 0.1
    choices = cascade.choose_by_rule(policy.rules, policy.answers.rules(policy.rules).rule_for(TARGET))
    assert set(choices) == {CHEAP, CHEAP_THEN_STRONG, STRONG}
    for row, (outcome, features, prediction) in enumerate(
        zip(outcomes, replay.features, replay.predictions, strict=True)
    ):
        tried = decide_first_step(policy.answers, policy.rules, features, prediction, TARGET)
        column = STRONG if tried.decision.model == PAIR[1] else CHEAP
        answer = outcome.results[PAIR[0]].answer
        if tried.inspects_answer and not accepts_answer(
            policy.answers, policy.rules, features, prediction, TARGET, answer
        ):
            column = CHEAP_THEN_STRONG
        assert column == choices[row]
    assert np.allclose(cascade.costs_usd[:, CHEAP_THEN_STRONG], replay.costs_usd.sum(axis=1))


def test_answer_rules_do_not_change_the_first_decision(learning, policy):
    for outcome in make_outcomes(40, seed=2):
        features = read_question(outcome.messages)
        prediction = predict(policy.predictor, features)
        before = decide(learning.policy.rules, features, prediction, TARGET)
        assert decide(policy.rules, features, prediction, TARGET).model == before.model


def test_a_guard_applies_before_the_cascade(policy):
    odd = read_question([{"role": "user", "content": "Compose a haiku about trains."}])
    tried = decide_first_step(policy.answers, policy.rules, odd, predict(policy.predictor, odd), TARGET)
    assert (tried.decision.model, tried.inspects_answer) == (PAIR[1], False)


def test_a_policy_without_answer_rules_reads_as_before(learning, policy, tmp_path):
    assert (
        learn_answer_rules(replace(learning, replay=replace(learning.replay, outcomes=without_answers(learning))), 0)
        is None
    )
    files = dump(learning.policy)
    assert not set(ANSWER_FILES) & set(files) and parse(files).answers is None
    assert parse(files).version != policy.version
    write_policy(policy, tmp_path)
    assert read_policy(tmp_path).version == policy.version
    write_policy(learning.policy, tmp_path)  # replaces a policy with answer rules
    assert read_policy(tmp_path).answers is None


def without_answers(learning):
    return [
        replace(outcome, results={model: replace(result, answer=None) for model, result in outcome.results.items()})
        for outcome in learning.replay.outcomes
    ]


def test_damaged_answer_rules_are_refused_with_the_file(policy):
    files = dump(policy)
    document = json.loads(files[ANSWERS])
    broken = {
        ANSWERS: [
            b"{",
            json.dumps(document | {"format": 9}).encode(),
            json.dumps(document | {"policy_sha256": "0" * 64}).encode(),
            json.dumps(document | {"numbers": ["length"]}).encode(),
            json.dumps(document | {"types": {"no/such": document["types"]["sums/baskets"]}}).encode(),
            json.dumps(document | {"targets": [document["targets"][-1] | {"answer_limit": None}]}).encode(),
            None,
        ],
        ANSWER_WEIGHTS: [b"", files[ANSWER_WEIGHTS][:100], files["weights.npz"], None],
    }
    for name, contents in broken.items():
        for content in contents:
            changed = {key: value for key, value in files.items() if key != name} | (
                {} if content is None else {name: content}
            )
            with pytest.raises(PolicyError) as error:
                parse(changed)
            assert error.value.file == name and "\n" not in str(error.value)


def test_a_type_whose_models_score_the_same_is_stored_and_read_again(policy):
    right, wrong = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    scores = np.array([right, wrong] * 20)  # each model is right where the other one is wrong
    question = np.array([[0.5, 0.5], [0.5, 0.5 + 1e-9]] * 20)  # ranks them the wrong way round
    inputs = AnswerInputs(
        np.array(["even"] * 40), np.zeros((40, 1)), question, np.ones(40, bool), np.full((40, 3), np.nan)
    )
    (benefit,) = select_types(inputs, scores[:, 1] + np.linspace(0, 0.1, 40), scores).values()
    assert benefit.apgr is None and benefit.apgr_without is None and benefit.score > 2

    name = next(iter(policy.answers.types))
    stored = replace(policy, answers=replace(policy.answers, types={name: benefit}))
    assert parse(dump(stored)).answers.types == {name: benefit}


def test_a_policy_transferred_to_another_pair_has_no_answer_rules(policy):
    cheap, strong = models_named(("gpt-4.1-mini", "gpt-4.1"), load_prices())
    assert transfer_policy(policy, cheap, strong).answers is None


def test_the_shipped_policy_uses_answers_but_no_single_letters():
    shipped = read_policy(DATA / "policy")
    assert {"code/execution-tracing", "math/number-comparison"} <= set(shipped.answers.types)
    assert not any(name.startswith("medical/") for name in shipped.answers.types)
    for rule, answer_rule in zip(shipped.rules.targets, shipped.answers.targets, strict=True):
        assert answer_rule.certified and answer_rule.expected_saving.estimate >= rule.expected_saving.estimate - 0.01
