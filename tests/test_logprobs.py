"""Log probabilities: learnt where they tell right answers from wrong ones, requested by the proxy, and removed."""

import asyncio
import json
import re
from dataclasses import replace

import httpx2
import numpy as np
import openai
import pytest
from fake_models import FakeModels
from fake_openai import completion, json_reply

from calibration.answers.answers import Answer, AnswerCollector, Endpoint
from calibration.learning.escalation import learn_answer_rules
from calibration.learning.learning import learn
from calibration.ledger import Ledger
from calibration.outcomes import InputError, Outcome, Result, read_outcomes, write_outcomes
from calibration.policies import load_prices, models_named, write_policy
from calibration.questions.questions import Question
from calibration.spending import Meter
from router.planning.plan import first_step
from router.policy.answer_document import ANSWERS
from router.policy.document import dump, parse
from router.policy.features import read_question
from router.policy.logprobs import LOGPROB_NAMES, summarise_logprobs
from router.upstream.calls import Call
from router.upstream.simulated import SimulatedUpstream

MINI, STRONG = PAIR = ("gpt-4o-mini", "gpt-4o")
TYPE, TARGET = "sums/baskets", 0.97
INCLUDED = "message.output_text.logprobs"


def text_of(i: int) -> str:
    return f"Basket {i} holds {10 + i % 80} apples and {10 + i % 71} pears. How many pieces of fruit are in it in all?"


def make_outcomes(n: int) -> list[Outcome]:
    """Sums whose wrong answers differ from right ones in their log probabilities alone, and choices."""
    rng = np.random.default_rng(0)
    outcomes = []
    for i in range(n):
        correct, is_sum = float(rng.random() < 0.75), i % 2 == 0
        logprobs = tuple(-rng.uniform(0.1, 1.5, 3) if correct else -rng.uniform(2.5, 4.0, 3))
        choice = f"Patient {10 + i % 83} of ward {10 + i % 77} has fever. Which diagnosis fits, A, B, C or D? Case {i}."
        results = {
            MINI: Result(correct, "Many pieces.", 60, 40, logprobs if is_sum else None),
            STRONG: Result(float(rng.random() < 0.97), "Many pieces.", 60, 40),
        }
        message = {"role": "user", "content": text_of(i) if is_sum else choice}
        outcomes.append(Outcome(f"made-{i}", [message], results, TYPE if is_sum else "medical/choices"))
    return outcomes


def learn_policy(outcomes):
    learning = learn(outcomes, models_named(PAIR, load_prices()), 0, {}, targets=(TARGET,))
    return replace(learning.policy, answers=learn_answer_rules(learning, 0))


@pytest.fixture(scope="module")
def policy():
    return parse(dump(learn_policy(make_outcomes(500))))


def test_log_probabilities_are_used_where_they_improve_the_ranking(policy):
    assert policy.answers.types[TYPE].apgr > policy.answers.types[TYPE].apgr_without + 0.2
    assert policy.answers.predictor.reads_logprobs(TYPE)
    assert json.loads(dump(policy)[ANSWERS])["numbers"][-3:] == list(LOGPROB_NAMES)


def test_a_type_with_an_answer_without_them_does_not_use_them():
    outcomes = make_outcomes(200)
    plain = replace(outcomes[0].results[MINI], logprobs=None)
    outcomes[0] = replace(outcomes[0], results=outcomes[0].results | {MINI: plain})
    answers = learn_policy(outcomes).answers
    assert answers is None or not answers.predictor.has_logprobs


def test_outcomes_store_them_and_reject_other_values(tmp_path):
    path = tmp_path / "outcomes.jsonl"
    outcomes = make_outcomes(2)
    write_outcomes(outcomes, path)
    assert read_outcomes([path], PAIR) == outcomes
    row = json.loads(path.read_text().splitlines()[0])
    row["outcomes"][MINI]["logprobs"] = [-0.5, 0.5, -1.0]
    path.write_text(json.dumps(row))
    with pytest.raises(InputError, match="logprobs of 'gpt-4o-mini' are not 3 numbers up to 0"):
        read_outcomes([path], PAIR)


def test_the_stated_result_is_found_in_the_tokens():
    tokens = [
        ("So", -0.1),
        (" the", -0.2),
        (" answer", -0.3),
        (" is", -0.4),
        (" **", -9999.0),
        ("42", -3.0),
        ("**", -1.0),
    ]
    assert summarise_logprobs("So the answer is **42**", tokens) == (pytest.approx(-25 / 7), -20.0, -3.0)
    assert summarise_logprobs("text", []) is None and summarise_logprobs("text", [("text", float("nan"))]) is None


CHAT, RESPONSES = "chat/completions", "responses"


def body_for(endpoint, text, **more):
    asked = {"input": text} if endpoint == RESPONSES else {"messages": [{"role": "user", "content": text}]}
    return {"model": f"auto@{TARGET}+verify", **asked, **more}


def simulate(endpoint, body):
    """The bytes that the simulated upstream sends for a body."""

    async def read() -> bytes:
        answer = await SimulatedUpstream().send(
            Call(b"POST", f"/{endpoint}".encode(), [], (json.dumps(body).encode(),))
        )
        return b"".join([piece async for piece in pieces(answer)])

    async def pieces(answer):
        while piece := await answer.read(1.0):
            yield piece

    return asyncio.run(read())


def without_times(data: bytes) -> bytes:
    return re.sub(rb'"created(_at)?":\d+', b'"created":0', data)


def certainty(text: str) -> float:
    """The mean log probability of the simulated answer to a question."""
    reply = simulate(CHAT, body_for(CHAT, text, model=MINI, logprobs=True))
    return json.loads(reply)["choices"][0]["logprobs"]["content"][0]["logprob"]


@pytest.fixture(scope="module")
def questions(policy):
    """A question that the simulated model answers with certainty, and one that it guesses."""
    texts = [text for text in map(text_of, range(0, 100, 2)) if inspects(policy, text)]
    by_certainty = sorted(texts, key=certainty)
    return by_certainty[-1], by_certainty[0]


def inspects(policy, text):
    features = read_question([{"role": "user", "content": text}])
    return first_step(policy, features, TARGET)[1] is not None


@pytest.fixture
def simulated_router(policy, start_router, tmp_path):
    write_policy(policy, tmp_path / "policy")
    return start_router(policy=str(tmp_path / "policy"))


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_client_gets_the_bytes_of_an_answer_without_them(simulated_router, questions, endpoint, streamed):
    certain, uncertain = questions
    for text, model in ((certain, MINI), (uncertain, STRONG)):
        body = body_for(endpoint, text, stream=streamed)
        reply = httpx2.post(f"{simulated_router.url}/{endpoint}", json=body, timeout=30)
        header, value = ("x-router-verified", "content") if model == MINI else ("x-router-escalated", "doubtful")
        assert (reply.headers.get(header), reply.headers["x-router-model"]) == (value, model)
        assert without_times(reply.content) == without_times(simulate(endpoint, body | {"model": model}))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("endpoint", "asked"), [(CHAT, {"logprobs": True}), (RESPONSES, {"include": [INCLUDED]})])
def test_a_client_that_requests_them_gets_them(simulated_router, questions, endpoint, asked, streamed):
    body = body_for(endpoint, questions[0], stream=streamed, **asked)
    reply = httpx2.post(f"{simulated_router.url}/{endpoint}", json=body, timeout=30)
    assert reply.headers["x-router-verified"] == "content" and b'"logprob":-' in reply.content
    assert without_times(reply.content) == without_times(simulate(endpoint, body | {"model": MINI}))


def test_the_official_client_notices_nothing(simulated_router, questions):
    client = openai.OpenAI(base_url=simulated_router.url, api_key="none")
    messages = [{"role": "user", "content": questions[0]}]
    answer = client.chat.completions.create(model=f"auto@{TARGET}+verify", messages=messages)
    assert answer.model == MINI and answer.choices[0].logprobs is None
    with client.responses.stream(model=f"auto@{TARGET}+verify", input=questions[0]) as stream:
        deltas = [event for event in stream if event.type == "response.output_text.delta"]
    assert len(deltas) > 20 and not any(delta.logprobs for delta in deltas)


@pytest.fixture
def router(policy, start_router, openai_server, tmp_path):
    write_policy(policy, tmp_path / "policy")
    return start_router(
        policy=str(tmp_path / "policy"), openai_base_url=openai_server.url, openai_api_key="sk-upstream"
    )


def ask(router, openai_server, text, *replies, **more):
    openai_server.enqueue(*replies)
    before = len(openai_server.received)
    body = body_for(CHAT, text, **more)
    reply = httpx2.post(router.url + "/chat/completions", json=body, timeout=30)
    sent = [(r.json["model"], r.json.get("logprobs")) for r in openai_server.received[before:]]
    return reply, sent


@pytest.mark.parametrize(
    "error",
    [
        {"message": "You are not allowed to request logprobs from this model.", "param": None},
        {"message": "extra fields not permitted", "code": 400},
    ],
    ids=["known", "unknown"],
)
def test_a_model_that_refuses_them_is_asked_again_without(router, openai_server, questions, error):
    replies = json_reply({"error": error}, 400), json_reply(completion(MINI)), json_reply(completion(STRONG))
    reply, sent = ask(router, openai_server, questions[0], *replies)
    assert reply.status_code == 200 and sent == [(MINI, True), (MINI, None), (STRONG, None)]
    if "not allowed" in error["message"]:  # later requests are decided by the question alone
        later, sent = ask(router, openai_server, questions[0])
        assert later.headers.get("x-router-verified") != "content"
        assert [logprobs for _, logprobs in sent] == [None]


def test_they_are_requested_for_the_check_by_content_alone(router, openai_server, questions):
    for more in ({"model": f"auto@{TARGET}"}, {"model": MINI}, {"messages": [{"role": "user", "content": "Hello"}]}):
        _, sent = ask(router, openai_server, questions[0], **more)
        assert [logprobs for _, logprobs in sent] == [None]


def test_calibration_records_them_and_continues_where_a_model_refuses_them(tmp_path):
    asked = [Question(f"q{i}", [{"role": "user", "content": text_of(i)}], expected_facts=["7"]) for i in range(8)]
    with FakeModels(asked) as fake, Ledger(tmp_path / "answers.jsonl") as ledger:
        fake.refuses_logprobs = {"kimi"}
        endpoints = {model: Endpoint(fake.base_url, "k", logprobs=True) for model in (MINI, "kimi")}
        endpoints[STRONG] = Endpoint(fake.base_url, "k")
        prices = load_prices()
        prices = replace(prices, prices={**prices.prices, "kimi": prices.prices[MINI]})
        collected = asyncio.run(AnswerCollector(endpoints, Meter(prices), ledger).collect(asked))
    assert not collected.failures and len(collected.answers) == 24
    by_model = {model: {collected.answers[q.id, model].logprobs for q in asked} for model in endpoints}
    assert by_model == {MINI: {(-0.5, -0.5, -0.5)}, "kimi": {None}, STRONG: {None}}


def test_an_answer_that_was_stored_without_them_is_read_as_before():
    stored = {"question_id": "q", "model": MINI, "text": "7", "usage": {"input_tokens": 1, "output_tokens": 1}}
    stored |= {"cost_usd": 0.1, "finish_reason": "stop", "started_unix_ns": 1, "seconds": 1.0}
    assert Answer.from_row("key", stored, "q").logprobs is None
