import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_outcomes import synthetic_outcomes

from calibration.outcomes import Outcome, Result
from calibration.policies import DATA, load_prices, read_policy
from router.policy.features import read_question
from router.policy.prices import PriceBook

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import conversations

CHEAP, STRONG = "gpt-4o-mini", "gpt-4o"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather.now",
            "description": "Tell the weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@pytest.fixture(scope="module")
def prices():
    book: PriceBook = load_prices()
    return {name: book.price(name) for name in (CHEAP, STRONG)}


@pytest.fixture(scope="module")
def policy():
    return read_policy(DATA / "policy")


def question(characters, written, scores=(0.0, 1.0)):
    results = {model: Result(score, None, None, written) for model, score in zip((CHEAP, STRONG), scores, strict=True)}
    return Outcome(f"made-{characters}", [{"role": "user", "content": "x" * characters}], results)


def in_turn(*models):
    """A function that chooses these models in turn, one per request."""
    remaining = iter(models)
    return lambda messages, tools: next(remaining)


TWO_TURNS = conversations.Conversation(
    [
        conversations.question_step(question(3984, 100)),
        conversations.question_step(question(384, 50)),
    ]  # 1,000 and 100 input tokens
)


def test_repeated_input_of_the_same_model_has_the_cached_price(prices):
    result = conversations.walk(TWO_TURNS, prices, in_turn(STRONG, STRONG))
    # the second turn has 1,100 earlier tokens, of which 8 x 128 = 1,024 are cached
    first = 1000 * 2.5 + 100 * 10
    assert result.usd == pytest.approx((first + (1200 - 1024) * 2.5 + 1024 * 1.25 + 50 * 10) / 1e6)
    assert result.usd_without_cache == pytest.approx((first + 1200 * 2.5 + 50 * 10) / 1e6)
    assert result.switches == 0
    assert result.score == 2.0


def test_another_model_reads_everything_at_the_full_price(prices):
    result = conversations.walk(TWO_TURNS, prices, in_turn(STRONG, CHEAP))
    assert result.usd == pytest.approx((1000 * 2.5 + 100 * 10 + 1200 * 0.15 + 50 * 0.6) / 1e6)
    assert result.usd == result.usd_without_cache
    assert result.switches == 1
    assert result.score == 1.0


def test_less_than_1024_tokens_are_not_cached(prices):
    short = conversations.Conversation([conversations.question_step(question(400, 10))] * 2)
    result = conversations.walk(short, prices, in_turn(STRONG, STRONG))
    assert result.usd == result.usd_without_cache
    assert [conversations.cached_tokens(n) for n in (1023, 1024, 1151, 1152)] == [0, 1024, 1024, 1152]


def test_every_change_between_consecutive_requests_is_a_switch(prices):
    five = conversations.Conversation([conversations.question_step(question(40, 5))] * 5)
    assert conversations.walk(five, prices, in_turn(CHEAP, STRONG, STRONG, CHEAP, STRONG)).switches == 3


def test_each_request_contains_all_earlier_messages_and_answers(prices):
    calls = []

    def choose(messages, tools):
        calls.append([(message["role"], len(message["content"])) for message in messages])
        return CHEAP

    conversations.walk(TWO_TURNS, prices, choose)
    assert calls == [[("user", 3984)], [("user", 3984), ("assistant", 400), ("user", 384)]]


@pytest.mark.parametrize(
    "kind", [pytest.param(k, id=k.replace(" ", "-")) for k in conversations.KINDS if k != "agent loop"]
)
def test_conversations_have_the_length_they_are_built_for(kind):
    build, lengths = conversations.KINDS[kind]
    outcomes = synthetic_outcomes(120)
    for turns in lengths:
        steps = build(outcomes, turns, np.random.default_rng(turns)).steps
        assert len(steps) == turns
        if kind == "one subject":
            assert len({step.outcome.question_type for step in steps}) == 1
        if kind == "with follow-ups":
            assert steps[1].outcome is steps[0].outcome
            assert steps[1].message["content"] in conversations.FOLLOW_UPS


def loop(task, rounds=10):
    results = {model: Result(1.0, None, 120, 20) for model in (CHEAP, STRONG)}
    outcome = Outcome("task", [{"role": "user", "content": task}], results, "tool-use/simple", tools=TOOLS)
    return conversations.agent_loop([outcome], rounds, np.random.default_rng(0))


def test_an_agent_loop_sends_each_call_with_its_result(prices):
    calls = []

    def choose(messages, tools):
        calls.append(list(messages))
        read_question(messages, tools)
        return CHEAP

    conversations.walk(loop("What is the weather in Bonn?", 2), prices, choose)
    *_, last = calls
    assert [message["role"] for message in last] == ["user", "assistant", "tool", "assistant", "tool"]
    assert last[1]["tool_calls"][0]["id"] == last[2]["tool_call_id"] == "call_1"
    assert last[3]["tool_calls"][0]["function"]["name"] == "weather.now"


@pytest.mark.parametrize("task", ["What is the weather in Bonn?", "Prove that the square root of 2 is irrational."])
def test_an_agent_loop_stays_with_the_model_of_its_first_request(policy, prices, task):
    result = conversations.walk(loop(task), prices, conversations.by_policy(policy, 0.97))
    assert len(result.models) == 11
    assert result.switches == 0


def test_a_turn_by_itself_is_decided_on_without_its_history(policy):
    choose = conversations.by_policy(policy, 0.97)
    sum_ = {"role": "user", "content": "A farmer has 12 cows, buys 7 more and sells 4. How many cows are left?"}
    follow_up = [sum_, {"role": "assistant", "content": "15"}, {"role": "user", "content": "Why?"}]
    assert choose(follow_up, None) == choose([sum_], None)
    assert conversations.without_history(choose)(follow_up, None) == choose(follow_up[-1:], None)


def test_a_row_names_its_input_and_the_effect_of_the_history(policy):
    rows = conversations.measure(synthetic_outcomes(120), policy, "mixed subjects", 3, 20, seed=0, target=0.97)
    history_row, alone_row = rows
    assert (history_row.decided_on, alone_row.decided_on) == (conversations.WHOLE, conversations.ALONE)
    assert history_row.conversations == 20
    assert history_row.requests == 3
    assert history_row.usd_beside_alone.estimate == pytest.approx(history_row.usd.estimate - alone_row.usd.estimate)
    assert alone_row.usd_beside_alone is None
    assert len(conversations.format_row(history_row).split("|")) == len(conversations.HEADER) + 2


def test_without_the_file_the_benchmark_reports_that_it_was_skipped(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["conversations.py", str(tmp_path / "absent.jsonl.gz")])
    assert conversations.main() == 0
    assert capsys.readouterr().out.startswith("skipped: ")
