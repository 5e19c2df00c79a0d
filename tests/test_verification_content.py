"""Verification by content: the strong model is called if the cheap model's answer is likely wrong."""

import gzip
import json

import httpx2
import numpy as np
import pytest
from fake_openai import chat_events, completion, json_reply, stream_reply

from calibration.learning.escalation import CHEAP, CHEAP_THEN_STRONG, replay_cascade
from calibration.learning.replay import replay_outcomes
from calibration.outcomes import read_outcomes
from router.planning.plan import first_step
from router.policy.distribution import SHIPPED
from router.serving.policy import read_policy
from router.verifying.answer import Answer, Choice, ToolCall
from router.verifying.content import answer_text, check_content
from router.verifying.expectation import Expectation

MINI, STRONG = "gpt-4o-mini", "gpt-4o"
TRACED = (
    "You are given a Python function and an assertion containing an input to the function. Complete the assertion with "
    "a literal (no unsimplified expressions, no function calls) containing the output when executing the provided code "
    "on the given input, even if the function is incorrect or incomplete.\n\n[PYTHON]\ndef f(row):\n    return "
    "(row.count('1'), row.count('0'))\nassert f(\"110100010\") == ??\n[/PYTHON]"
)
RIGHT, WRONG = "The function counts ones and zeros.\n\nAnswer: (4, 5)", "The function counts.\n\nAnswer: (3, 6)"


@pytest.fixture
def ask(start_router, openai_server):
    """A function that requests `auto-quality+verify`; returns the answer and the called models."""
    router = start_router(openai_base_url=openai_server.url, openai_api_key="sk-upstream")

    def ask_question(*replies, question=TRACED, model="auto-quality+verify", headers=None, **more):
        openai_server.enqueue(*replies)
        before = len(openai_server.received)
        body = {"model": model, "messages": [{"role": "user", "content": question}], **more}
        answer = httpx2.post(router.url + "/chat/completions", json=body, headers=headers, timeout=30)
        return answer, [received.json["model"] for received in openai_server.received[before:]], router

    return ask_question


def model_reply(model: str, text: str, streamed: bool):
    if streamed:
        words = text.split(" ")
        return stream_reply(*chat_events(model, [f"{word} " for word in words[:-1]] + words[-1:]))
    return json_reply(completion(model, text))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_wrong_answer_is_escalated_to_the_strong_model(ask, streamed):
    answer, models, router = ask(
        model_reply(MINI, WRONG, streamed), model_reply(STRONG, RIGHT, streamed), stream=streamed
    )
    assert (answer.status_code, models) == (200, [MINI, STRONG])
    assert (answer.headers["x-router-escalated"], answer.headers["x-router-reason"]) == ("doubtful", "escalated")
    assert "(3," not in answer.text and "(4," in answer.text
    record = router.records()[-1]
    assert (record["verification"], record["finding"], record["escalated_from"]) == ("escalated", "doubtful", MINI)
    assert [attempt["model"] for attempt in record["wasted"]] == [MINI]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_correct_answer_is_returned(ask, streamed):
    answer, models, router = ask(model_reply(MINI, RIGHT, streamed), stream=streamed)
    assert (answer.status_code, models) == (200, [MINI])
    assert answer.headers["x-router-verified"] == "content" and "x-router-escalated" not in answer.headers
    assert router.records()[-1]["verification"] == "verified"


def test_with_verification_a_strong_question_is_tried_on_the_cheap_model(ask):
    _, unverified, _ = ask(model_reply(STRONG, RIGHT, False), model="auto-quality")
    _, by_form, _ = ask(model_reply(STRONG, RIGHT, False), model="auto-quality", headers={"x-router-verify": "form"})
    _, by_content, _ = ask(model_reply(MINI, RIGHT, False))
    assert (unverified, by_form, by_content) == ([STRONG], [STRONG], [MINI])


def test_answers_of_other_types_are_verified_by_format_only(ask):
    answer, models, _ = ask(
        model_reply(MINI, "Paris.", False), question="What is the capital of France?", model="auto+verify"
    )
    assert models == [MINI] and answer.headers["x-router-verified"] == "form"


def test_every_choice_is_inspected_and_tool_calls_are_read_as_json():
    texts_seen = []
    request = Expectation("chat/completions", holds=lambda text, _: bool(texts_seen.append(text)) or text != "bad")
    calls = (ToolCall("f", '{"a": 1}'), ToolCall("g", "{torn"))
    assert check_content(request, Answer((Choice("good"), Choice("bad")))).fault == "doubtful"
    assert check_content(request, Answer((Choice(calls=calls),))) is None
    assert json.loads(texts_seen[-1]) == [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": "{torn"}]
    assert answer_text(Choice("text")) == "text"
    assert check_content(Expectation("chat/completions"), Answer((Choice("bad"),))) is None


def test_the_proxy_inspects_answers_like_the_certificate(shared_data, tmp_path):
    """Each recorded question is answered like in the replay, on which the certificate is based."""
    with gzip.open(shared_data / "test.jsonl.gz", "rt") as file:
        lines = file.readlines()[::25]
    (tmp_path / "some.jsonl").write_text("".join(lines))
    policy = read_policy(SHIPPED)
    outcomes = read_outcomes([tmp_path / "some.jsonl"], [MINI, STRONG])
    replay = replay_outcomes(outcomes, policy.predictor, policy.rules.models)
    cascade = replay_cascade(policy, policy.answers, replay)
    for rule in policy.answers.targets:
        if rule.target not in (0.97, 0.99):
            continue
        columns = []
        for outcome, features in zip(outcomes, replay.features, strict=True):
            decision, holds = first_step(policy, features, rule.target)
            answer = outcome.results[MINI].answer
            cheap = decision.model == MINI
            passed = cheap and (holds is None or not isinstance(answer, str) or holds(answer))
            columns.append(CHEAP if passed else CHEAP_THEN_STRONG if cheap else CHEAP_THEN_STRONG + 1)
        assert np.mean(np.array(columns) == cascade.choose_by_rule(policy.rules, rule)) == 1.0
