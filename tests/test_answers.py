"""Models answer questions once each, within rate limits and budget, and no paid answer is lost."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_models import FakeModels
from fake_openai import FakeOpenAI, json_reply
from openai.types.chat import ChatCompletion

from calibration.answers import batch
from calibration.answers.answers import AnswerCollector, AnswerSet, Endpoint, read_completion
from calibration.commands.endpoints import build_endpoint, parse_addresses
from calibration.ledger import Ledger, LedgerError
from calibration.policies import load_prices
from calibration.questions.questions import Question, parse
from calibration.spending import BudgetError, Meter, StoppedError, price_of
from router.policy.prices import PriceError
from router.policy.usage import Usage

MODELS = ("gpt-4o-mini", "gpt-4o")
QUESTIONS = [
    parse({"id": f"q{n}", "question_type": "t", "question": f"What is number {n}?", "expected_facts": ["a number"]})
    for n in range(20)
]


@pytest.fixture
def fake() -> Iterator[FakeModels]:
    with FakeModels(QUESTIONS) as server:
        yield server


def endpoints(fake: FakeModels, max_output_tokens: int = 2000) -> dict[str, Endpoint]:
    return dict.fromkeys(MODELS, Endpoint(fake.base_url, "sk-test", max_output_tokens))


def ask(
    fake: FakeModels,
    folder: Path,
    questions: list[Question] = QUESTIONS,
    meter: Meter | None = None,
    max_output_tokens: int = 2000,
    **options: float,
) -> tuple[AnswerSet, Meter]:
    meter = meter or Meter(load_prices())
    with Ledger(folder / "answers.jsonl") as ledger:
        asking = AnswerCollector(endpoints(fake, max_output_tokens), meter, ledger, **options)  # type: ignore[arg-type]
        return asyncio.run(asking.collect(questions)), meter


def test_every_model_answers_every_question_and_every_token_is_counted(fake: FakeModels, tmp_path: Path) -> None:
    collection, meter = ask(fake, tmp_path)
    assert len(collection.answers) == 40 and not collection.failures
    assert sorted(fake.successful_calls("answer")) == sorted(
        (name, question.text) for question in QUESTIONS for name in MODELS
    )
    for model in MODELS:
        usage = meter.usage["answers", model]
        assert [usage.input_tokens, usage.output_tokens] == fake.billed_tokens[model]
    assert meter.spent_usd() == pytest.approx(sum(answer.cost_usd for answer in collection.answers.values()))
    assert 1 < fake.most_in_flight <= 16


def test_a_rerun_calls_no_model_and_costs_nothing(fake: FakeModels, tmp_path: Path) -> None:
    first, _ = ask(fake, tmp_path)
    again, meter = ask(fake, tmp_path)
    assert again.answers == first.answers
    assert (again.new_count, meter.spent_usd(), len(fake.successful_calls("answer"))) == (0, 0.0, 40)


def test_changed_parameters_require_new_answers(fake: FakeModels, tmp_path: Path) -> None:
    ask(fake, tmp_path)
    collection, _ = ask(fake, tmp_path, max_output_tokens=100)
    assert collection.new_count == 40


def test_rate_limited_calls_are_retried_and_no_answer_is_missing(fake: FakeModels, tmp_path: Path) -> None:
    fake.faults.rate_limited = 0.5
    collection, _ = ask(fake, tmp_path)
    assert len(collection.answers) == 40 and len(fake.successful_calls("answer")) == 40


@pytest.mark.parametrize("budget", [0.0005, 0.003, 0.006])
def test_the_budget_is_not_exceeded_and_paid_answers_are_stored(
    fake: FakeModels, tmp_path: Path, budget: float
) -> None:
    meter = Meter(load_prices(), budget_usd=budget)
    with pytest.raises(BudgetError, match="--budget-usd"):
        ask(fake, tmp_path, meter=meter, max_output_tokens=80)
    prices = load_prices()
    billed = sum(price_of(prices, model).cost_usd(Usage(*tokens)) for model, tokens in fake.billed_tokens.items())
    assert billed == pytest.approx(meter.spent_usd()) and billed <= budget
    before = len(fake.successful_calls("answer"))
    collection, _ = ask(fake, tmp_path, max_output_tokens=80)
    assert collection.new_count == 40 - before and len(fake.successful_calls("answer")) == 40


@pytest.mark.parametrize("fault", ["away", "refused key"])
def test_if_an_address_fails_the_next_one_is_called(
    fake: FakeModels, tmp_path: Path, closed_port: int, openai_server: FakeOpenAI, fault: str
) -> None:
    refusal = json_reply({"error": {"message": "no", "code": "invalid_api_key"}}, 401)
    openai_server.enqueue(*[refusal] * 40)
    first = openai_server.url if fault == "refused key" else f"http://127.0.0.1:{closed_port}/v1"
    end = Endpoint(first, "sk-1", fallbacks=(Endpoint(fake.base_url, "sk-2"),))
    with Ledger(tmp_path / "answers.jsonl") as ledger:
        asking = AnswerCollector(
            dict.fromkeys(MODELS, end), Meter(load_prices()), ledger, concurrency=4, patience_seconds=0.2
        )
        collection = asyncio.run(asking.collect(QUESTIONS))
        assert len(collection.answers) == 40 and not collection.failures
        assert len(fake.successful_calls("answer")) == 40 and len(openai_server.received) <= 4 * len(MODELS)
        again = AnswerCollector(dict.fromkeys(MODELS, Endpoint(first, "sk-1")), Meter(load_prices()), ledger)
        assert (
            asyncio.run(again.collect(QUESTIONS)).answers.keys() == collection.answers.keys()
        )  # parameters belong to the model


def test_if_all_addresses_of_a_model_reject_the_key_the_run_stops(openai_server: FakeOpenAI, tmp_path: Path) -> None:
    openai_server.enqueue(*[json_reply({"error": {"message": "no"}}, 401)] * 40)
    end = Endpoint(openai_server.url, "sk-1")
    endpoints = {"gpt-4o": replace(end, fallbacks=(end,))}
    with Ledger(tmp_path / "answers.jsonl") as ledger, pytest.raises(StoppedError, match="refuses gpt-4o"):
        asyncio.run(AnswerCollector(endpoints, Meter(load_prices()), ledger, concurrency=1).collect(QUESTIONS))
    assert len(openai_server.received) == 2


def test_a_repeated_address_becomes_a_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECOND_KEY", "sk-2")
    addresses = parse_addresses(["m=http://first/v1", "m=http://second/v1,SECOND_KEY"])
    endpoint = build_endpoint("m", addresses, 100, {})
    assert [(address.base_url, address.api_key) for address in (endpoint, *endpoint.fallbacks)] == [
        ("http://first/v1", "none"),
        ("http://second/v1", "sk-2"),
    ]


def test_an_outage_stops_with_advice_and_keeps_the_answers(fake: FakeModels, tmp_path: Path) -> None:
    ask(fake, tmp_path, QUESTIONS[:5])
    fake.faults.answers_unavailable = True
    with pytest.raises(StoppedError, match="run the same command again"):
        ask(fake, tmp_path, patience_seconds=0.5)
    fake.faults.answers_unavailable = False
    collection, _ = ask(fake, tmp_path)
    assert (len(collection.answers), collection.new_count) == (40, 30)


@pytest.mark.parametrize("status", [401, 404])
def test_a_rejected_key_stops_at_once_and_names_the_settings(fake: FakeModels, tmp_path: Path, status: int) -> None:
    fake.faults.refuse = status
    with pytest.raises(StoppedError, match="Check OPENAI_API_KEY, OPENAI_BASE_URL") as error:
        ask(fake, tmp_path)
    assert "sk-test" not in str(error.value)


def test_an_interrupted_run_finishes_and_stores_its_open_calls(fake: FakeModels, tmp_path: Path) -> None:
    fake.faults.seconds = 0.1

    async def interrupted(ledger: Ledger) -> None:
        asking = AnswerCollector(endpoints(fake), Meter(load_prices()), ledger, concurrency=4)
        asyncio.get_running_loop().call_later(0.25, asking.stop, StoppedError("interrupted"))
        await asking.collect(QUESTIONS)

    with Ledger(tmp_path / "answers.jsonl") as ledger:
        with pytest.raises(StoppedError, match="interrupted"):
            asyncio.run(interrupted(ledger))
        assert 0 < len(ledger) == len(fake.successful_calls("answer")) < 40


def test_a_truncated_line_is_requested_again_and_the_rest_is_kept(fake: FakeModels, tmp_path: Path) -> None:
    ask(fake, tmp_path)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    collection, _ = ask(fake, tmp_path)
    assert (len(collection.answers), collection.new_count) == (40, 1)
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_an_answer_with_an_unpaired_surrogate_is_paid_once(tmp_path: Path) -> None:
    completion = ChatCompletion.model_validate(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "cut \ud83d"}}
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }
    )
    assert read_completion(completion) == ("cut ?", Usage(3, 2), "stop")
    with Ledger(tmp_path / "judge.jsonl") as ledger:
        ledger.add("a", {"reply": "cut \ud83d"})
    with Ledger(tmp_path / "judge.jsonl") as again:
        assert again.get("a") == {"reply": "cut \ud83d"}


def test_a_full_disk_stops_with_advice_and_leaves_no_partial_line(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:  # a limit on file size acts like a full disk for one process
        os._exit(_write_beyond_a_limit(tmp_path / "answers.jsonl"))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with Ledger(tmp_path / "answers.jsonl") as again:
        assert list(again) == ["first", "second"]


def _write_beyond_a_limit(path: Path) -> int:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Ledger(path) as ledger:
        ledger.add("first", {"text": "x" * 100})
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, resource.RLIM_INFINITY))
        try:
            ledger.add("lost", {"text": "x" * 100})
        except StoppedError as error:
            if "free disk space and run the same command again" not in str(error) or "lost" in ledger:
                return 1
        else:
            return 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        ledger.add("second", {"text": "y"})
    return 0


def test_only_one_calibration_at_a_time_uses_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with Ledger(path), pytest.raises(LedgerError, match="in use by another calibration"):
        Ledger(path)


def test_the_error_of_a_model_without_a_price_has_the_line_to_add() -> None:
    with pytest.raises(PriceError, match=r"llama-9.*usd_per_million_input_tokens"):
        price_of(load_prices(), "llama-9")


def submit(
    fake: FakeModels, folder: Path, questions: list[Question] = QUESTIONS, models: tuple[str, ...] = MODELS
) -> tuple[AnswerSet, Meter]:
    """Collect answers by batches."""
    meter, endpoint_by_model = Meter(load_prices()), {model: endpoints(fake)[model] for model in models}
    with Ledger(folder / "answers.jsonl") as ledger:
        return batch.collect_batch(questions, endpoint_by_model, meter, ledger, folder, poll_seconds=0.05), meter


def interrupt(fake: FakeModels, folder: Path) -> None:
    """Ctrl-C while the first batch is running."""
    fake.faults.answers_unavailable = True  # the batch stays in progress
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(StoppedError, match="resumes waiting for them"):
        submit(fake, folder)
    fake.faults.answers_unavailable = False


def test_a_batch_costs_half_and_is_not_submitted_repeated_after_an_interruption(
    fake: FakeModels, tmp_path: Path
) -> None:
    interrupt(fake, tmp_path)
    collection, meter = submit(fake, tmp_path)
    assert len(collection.answers) == len(fake.calls) == 40 and len(fake.batches) == 2
    prices = load_prices()
    billed = sum(price_of(prices, model).cost_usd(Usage(*tokens)) for model, tokens in fake.billed_tokens.items())
    assert meter.spent_usd() == pytest.approx(billed / 2)
    again, meter = submit(fake, tmp_path)
    assert (again.answers, meter.spent_usd(), len(fake.batches)) == (collection.answers, 0.0, 2)
    assert list(tmp_path.glob("batch-*.jsonl")) == []


def test_a_running_batch_is_found_again_by_other_selections_of_its_questions(fake: FakeModels, tmp_path: Path) -> None:
    interrupt(fake, tmp_path)
    partial, _ = submit(fake, tmp_path, QUESTIONS[:5])
    assert len(partial.answers) == 10 and len(fake.batches) == 2
    collection, _ = submit(fake, tmp_path)
    assert (
        len(collection.answers) == 40 and [model for model, _ in fake.successful_calls("answer")].count(MODELS[0]) == 20
    )


def test_a_process_that_is_killed_while_it_stores_a_batch_stores_the_rest_later(
    fake: FakeModels, tmp_path: Path
) -> None:
    interrupt(fake, tmp_path)
    (file,) = tmp_path.glob("batch-*.jsonl")
    content = file.read_bytes()
    submit(fake, tmp_path)
    lines = (tmp_path / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "answers.jsonl").write_bytes(b"".join(lines[:3]))
    file.write_bytes(content)  # is removed after the last answer
    collection, _ = submit(fake, tmp_path, models=MODELS[:1])
    assert (len(collection.answers), collection.new_count, len(fake.batches)) == (20, 17, 2)


@pytest.mark.parametrize("shares", [{"failed_in_batch": 0.4}, {"expired_in_batch": 0.4}, {"expired_in_batch": 1.0}])
def test_requests_without_an_answer_are_submitted_again_by_the_next_call(
    shares: dict[str, float], fake: FakeModels, tmp_path: Path
) -> None:
    for name, share in shares.items():
        setattr(fake.faults, name, share)
    collection, _ = submit(fake, tmp_path)
    count = len(collection.answers)
    assert count < 40 and len(collection.failures) == 40 - count
    assert set(collection.failures.values()) <= {"it broke", "This request could not be executed in time."}
    fake.faults.failed_in_batch = fake.faults.expired_in_batch = 0.0
    again, _ = submit(fake, tmp_path)
    assert (len(again.answers), again.new_count, again.failures) == (40, 40 - count, {})
    assert len(fake.batches) == 4 and len(fake.calls) == 40


def test_an_expired_batch_continues_with_its_rest(fake: FakeModels, tmp_path: Path) -> None:
    interrupt(fake, tmp_path)
    fake.faults.expired_in_batch = 0.4
    for running_batch in fake.batches.values():
        fake._process(running_batch)
    fake.faults.expired_in_batch = 0.0
    collection, _ = submit(fake, tmp_path)
    assert len(collection.answers) == len(fake.calls) == 40 and len(fake.batches) == 3


def test_a_repeated_question_is_submitted_once(fake: FakeModels, tmp_path: Path) -> None:
    repeated = [QUESTIONS[0], replace(QUESTIONS[0], id="again")]
    collection, _ = submit(fake, tmp_path, repeated, MODELS[1:])
    assert len(collection.answers) == 2 and len(fake.calls) == 1


def test_the_reason_of_a_failed_batch_is_reported(fake: FakeModels, tmp_path: Path) -> None:
    fake.faults.batch_refused = "Enqueued token limit reached"
    collection, meter = submit(fake, tmp_path, QUESTIONS[:2])
    assert set(collection.failures.values()) == {
        "the batch ended as failed without an answer: Enqueued token limit reached"
    }
    fake.faults.batch_refused = ""
    again, _ = submit(fake, tmp_path, QUESTIONS[:2])
    assert len(again.answers) == 4 and meter.spent_usd() == 0.0


def test_tool_calls_become_the_answers_text(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "book", "parameters": {"type": "object", "properties": {}}}}
    reference = {"name": "book", "arguments": {"city": "Oslo"}}
    question = parse(
        {"id": "t", "question": "Book Oslo", "tools": [tool], "reference": reference, "check": "tool_call"}
    )
    with FakeModels([question]) as fake:
        collection, _ = ask(fake, tmp_path, [question])
    assert question.check is not None
    assert all(question.check.passes(answer.text) for answer in collection.answers.values())
