"""The relay of the judge's calls: what it learns from refusals, and when it gives a judge up."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import openai
import pytest
from fake_openai import FakeOpenAI, json_reply

from calibration.answers.answers import Endpoint
from calibration.judging import relay
from calibration.judging.relay import JudgeRelay
from calibration.ledger import Ledger
from calibration.policies import load_prices
from calibration.spending import Meter, StoppedError

VERDICT = {
    "choices": [{"message": {"role": "assistant", "content": '{"result": "yes"}'}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
}
UNSUPPORTED = {
    "error": {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "unsupported_parameter",
    }
}
FILTERED = {"error": {"message": "The prompt was filtered", "type": "invalid_request_error", "code": "content_filter"}}


def prompt(text):
    return {"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": text}]}


class Judge(FakeOpenAI):
    """Refuses `max_tokens`, slowly, and prompts that say "bad"."""

    def _next(self, request):
        if "max_tokens" in request.json:
            return replace(json_reply(UNSUPPORTED, 400), wait=0.5)
        return json_reply(FILTERED, 400) if "bad" in request.json["messages"][0]["content"] else json_reply(VERDICT)


@pytest.fixture
def judge():
    server = Judge()
    yield server
    server.close()


@pytest.fixture
def opened(judge, tmp_path):
    with (
        Ledger(tmp_path / "calls.jsonl") as calls,
        JudgeRelay(Endpoint(judge.url, "k", 300), Meter(load_prices()), calls) as relay,
    ):
        yield relay


def learn_max_tokens(opened):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(opened.reply, (prompt("a"), prompt("b"))))


def test_two_calls_that_meet_the_same_refusal_both_go_on(opened, judge):
    assert learn_max_tokens(opened) == [VERDICT, VERDICT] and opened.stopped is None
    assert ["max_tokens" in request.json for request in judge.received] == [True, True, False, False]


def test_a_prompt_that_the_judge_refuses_fails_alone(opened):
    learn_max_tokens(opened)
    for number in range(2 * relay.MOST_REFUSED_PROMPTS):
        with pytest.raises(openai.BadRequestError):
            opened.reply(prompt(f"bad {number}"))
    assert opened.reply(prompt("good")) == VERDICT and opened.stopped is None


def test_a_judge_that_refuses_everything_is_given_up(opened, monkeypatch):
    monkeypatch.setattr(opened._adapting, "adapt", lambda body: {k: v for k, v in body.items() if k != "max_tokens"})
    for number in range(relay.MOST_REFUSED_PROMPTS - 1):
        for _ in range(2):  # MLflow asks again
            with pytest.raises(openai.BadRequestError):
                opened.reply(prompt(f"bad {number}"))
    with pytest.raises(StoppedError, match=r"refuses: status 400, The prompt was filtered\. Check --judge"):
        opened.reply(prompt("bad, once more"))
