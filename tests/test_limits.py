"""Budgets and rates of keys over real HTTP: held before a request is sent, settled when it ends."""

import asyncio
import contextlib
import cProfile
import json
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import openai
import pytest
from fake_openai import Reply, chat_events, completion, json_reply, stream_reply
from running import RunningRouter
from synthetic_records import make_record
from test_app import SUM, command
from test_keys import UPSTREAM, ask, change_roster, create_key, create_team
from waiting import until

from router import admission
from router.client import issuing
from router.client.keyfile import Limits, Owner, read_keys
from router.errors import QuotaError, RateLimitError
from router.exporter.shipping import drain, shippers_for
from router.journal.segments import Cursor
from router.journal.writer import Journal
from router.limits.account import Account, day_of, duration, month_of
from router.limits.booking import hold
from router.limits.bound import Most
from router.limits.spent import spent
from router.planning.api_formats import CHAT
from router.planning.plan import make_plan, read_request
from router.settings import KEYS_FILE, SettingsError, load
from router.wire.skeleton import Skeleton

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import hot_path

NOON = int(datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()) * 10**9
DAY_NS = 86_400 * 10**9
ADA, TEAM = Owner("key", "ada"), Owner("team", "research")
MODEL = "gpt-4o"  # $2.50 and $10 per million tokens
ANSWER_USD = (20 * 2.5 + 4000 * 10) / 1e6


def big_stream(wait: float = 0.0, *, usage: bool = True, end: str = "whole") -> Reply:
    """A stream of MODEL that bills 20 input and 4,000 output tokens."""
    pieces = chat_events(MODEL, usage=usage)
    replacement = (b'"prompt_tokens":12,"completion_tokens":3', b'"prompt_tokens":20,"completion_tokens":4000')
    details = (b',"prompt_tokens_details":{"cached_tokens":4}', b"")
    pieces = [piece.replace(*replacement).replace(*details) for piece in pieces]
    return stream_reply(*(pieces[:3] if end != "whole" else pieces), wait=wait, end=end)


@pytest.fixture
def limited(start_router, openai_server, tmp_path):
    """A function that starts a router whose key `ada` has these limits; returns router and key."""

    def start(settings=UPSTREAM, key=None, **limits):
        home = tmp_path / "home-0"
        key = create_key(home, "ada", limits=Limits(**limits)) if key is None else key
        return start_router(**{"openai_base_url": openai_server.url, **settings}), key

    return start


def body(model=MODEL, **fields):
    return {"model": model, "messages": SUM, "max_tokens": 4096, **fields}


def chat(router, key, model=MODEL, **fields):
    return ask(router, "/v1/chat/completions", key, body(model, **fields))


def account(router, owner=ADA):
    return router.app.worker.limiter.accounts[owner]


def limited_keys(home, owner, **limits):
    """Keys with these limits: one key, or two keys of a team."""
    if owner.kind == "key":
        return [create_key(home, owner.name, limits=Limits(**limits))]
    create_team(home, owner.name, **limits)
    return [create_key(home, name, team=owner.name) for name in ("ada", "bob")]


async def send_many(router, keys, count, **fields):
    """Send `count` concurrent streams with these keys; return statuses and `x-should-retry`."""
    limits = httpx2.Limits(max_connections=count)
    async with httpx2.AsyncClient(timeout=30, limits=limits) as client:

        async def send_one(key):
            options = {"json": body(stream=True, **fields), "headers": {"authorization": f"Bearer {key}"}}
            async with client.stream("POST", router.url + "/chat/completions", **options) as answer:
                await answer.aread()
                return answer.status_code, answer.headers.get("x-should-retry")

        return await asyncio.gather(*(send_one(keys[number % len(keys)]) for number in range(count)))


# dollars


@pytest.mark.parametrize("owner", [ADA, TEAM], ids=str)
def test_200_concurrent_streams_spend_no_more_than_the_dollar_left(
    limited, openai_server, tmp_path, monkeypatch, owner
):
    monkeypatch.setattr(admission, "MAX_WAIT_SECONDS", 60.0)  # the machine may be busy
    keys = limited_keys(tmp_path / "home-0", owner, usd_a_day=1.0)
    router, key = limited(key=keys[0])
    openai_server.enqueue(*(big_stream(wait=1.0) for _ in range(400)))
    answers = asyncio.run(send_many(router, keys, 200))
    answered_count = [status for status, _ in answers].count(200)
    assert {status for status, _ in answers} == {200, 429}
    assert len(openai_server.received) == answered_count  # nothing is sent for a rejected request
    assert 15 <= answered_count <= 1.0 / ANSWER_USD
    assert "true" in {retry for _, retry in answers}  # rejected while the budget was on hold, not spent
    records = router.records(200)
    assert len(records) == 200
    assert {record["key_id"] for record in records} == set(("ada", "bob")[: len(keys)])
    assert {record["team"] for record in records} == {"" if owner == ADA else "research"}
    cost = sum(record["cost_usd"] or 0.0 for record in records)
    assert cost == pytest.approx(answered_count * ANSWER_USD) and cost <= 1.0
    day = account(router, owner).day
    assert day.spent_usd == pytest.approx(cost) and day.held_usd == pytest.approx(0)
    while chat(router, key, stream=True).status_code == 200:  # spend the rest one by one
        pass
    assert 1.0 - 2 * ANSWER_USD < day.spent_usd <= 1.0
    response = chat(router, key)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "insufficient_quota")
    assert response.json()["error"]["type"] == "insufficient_quota" and response.headers["x-should-retry"] == "false"
    assert f"{owner} has spent" in response.json()["error"]["message"]


def test_a_rejected_request_is_recorded_with_its_key_and_without_cost(limited, openai_server):
    router, key = limited(usd_a_month=0.001)
    assert chat(router, key).status_code == 429
    record = router.records(1)[0]
    assert (record["key_id"], record["status"], record["outcome"]) == ("ada", 429, "failed")
    assert (record["model"], record["cost_usd"], record["kept_usd"]) == ("", None, 0.0)
    assert openai_server.received == [] and account(router).month.spent_usd == 0.0


def test_the_official_client_does_not_retry_if_the_budget_is_spent(limited, openai_server):
    router, key = limited(usd_a_day=0.001)
    client = openai.OpenAI(base_url=router.url, api_key=key, max_retries=3)
    with client, pytest.raises(openai.RateLimitError) as error:
        client.chat.completions.create(**body())
    assert error.value.code == "insufficient_quota" and "$0.001 a day" in error.value.message
    assert len(router.records(2, seconds=0.3)) == 1 and openai_server.received == []


def test_a_hold_is_settled_to_the_billed_amount(limited):
    router, key = limited(usd_a_day=0.05)
    for _ in range(5):  # each holds 0.041, which it releases before the next one
        assert chat(router, key).status_code == 200
    cost = sum(record["cost_usd"] for record in router.records(5))
    assert account(router).day.spent_usd == account(router).month.spent_usd == pytest.approx(cost)
    assert 0 < cost < 0.001


def test_the_hold_covers_the_most_expensive_eligible_model_and_tier(limited):
    router, _ = limited(usd_a_day=10.0)
    bound = router.app.worker.limiter._bound

    def maximum_of(model, left_out=(), **fields):
        request = read_request(json.dumps(body(model, **fields)).encode(), CHAT)
        plan = make_plan(CHAT, router.app.worker.serving, router.app.worker.adapter, (), request, {})
        models = router.app.worker.serving.policy.rules.models
        return bound.most(plan, CHAT, Skeleton(b" " * 1000, *left_out), models, time.time_ns(), priced=True)

    strong = maximum_of(MODEL)
    assert strong.usd == pytest.approx((1000 * 2.5 + 4096 * 10) / 1e6)
    assert maximum_of("auto").usd >= strong.usd
    assert maximum_of(MODEL, n=3).usd == pytest.approx((1000 * 2.5 + 3 * 4096 * 10) / 1e6)
    assert maximum_of(MODEL, service_tier="priority").usd > strong.usd
    assert maximum_of(MODEL, max_tokens=None).usd == strong.usd  # 4,096 by default
    assert maximum_of(MODEL, max_tokens=10**9).usd == pytest.approx((1000 * 2.5 + 16384 * 10) / 1e6)
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]}
    assert maximum_of(MODEL, messages=[image]).usd > strong.usd
    large = (1,), (10**6,)  # a long attachment, which is not read
    assert maximum_of(MODEL, large, messages=[image]).usd == maximum_of(MODEL, messages=[image]).usd
    assert maximum_of(MODEL, large).usd >= (128_000 * 2.5 + 4096 * 10) / 1e6
    sound = {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}
    assert maximum_of(MODEL, messages=[sound]).usd >= (128_000 * 2.5 + 4096 * 10) / 1e6


def test_only_keys_with_a_budget_cannot_use_a_model_without_a_price(limited, openai_server):
    router, key = limited(usd_a_day=1.0)
    response = chat(router, key, "unheard-of")
    assert (response.status_code, response.json()["error"]["code"]) == (403, "model_without_price")
    assert openai_server.received == []
    change_roster(router.home, issuing.set_limits, "ada", {"usd_a_day": "none", "requests_a_minute": "60"})
    assert until(lambda: chat(router, key, "unheard-of").status_code == 200)


def test_if_the_usage_is_unknown_the_hold_is_kept_and_recorded(limited, openai_server):
    router, key = limited(usd_a_day=1.0)
    openai_server.enqueue(big_stream(usage=False))
    assert chat(router, key, stream=True).status_code == 200
    record = router.records(1)[0]
    assert record["cost_usd"] is None and 0.0409 < record["kept_usd"] < 0.042
    assert account(router).day.spent_usd == record["kept_usd"]


@pytest.mark.parametrize("end", ["early", "reset"])
def test_an_interrupted_stream_keeps_its_hold(limited, openai_server, end):
    router, key = limited(usd_a_day=1.0)
    openai_server.enqueue(big_stream(end=end))
    with pytest.raises(httpx2.HTTPError):
        chat(router, key, stream=True)
    record = router.records(1)[0]
    assert record["outcome"] == "cut" and account(router).day.spent_usd == record["kept_usd"] > 0.04
    assert account(router).day.held_usd == 0.0


def test_a_client_that_disconnects_pays_its_hold(limited, openai_server):
    router, key = limited(usd_a_day=1.0)
    openai_server.enqueue(big_stream(wait=30.0))
    with pytest.raises(httpx2.ReadTimeout):
        headers = {"authorization": f"Bearer {key}"}
        httpx2.post(router.url + "/chat/completions", json=body(stream=True), headers=headers, timeout=0.5)
    record = router.records(1)[0]
    assert (record["outcome"], record["cost_usd"]) == ("abandoned", None)
    assert account(router).day.spent_usd == record["kept_usd"] > 0.04 and account(router).day.held_usd == 0.0


def test_an_upstream_error_releases_the_hold(limited, openai_server):
    router, key = limited(usd_a_day=1.0)
    refusal = json_reply({"error": {"message": "no", "type": "invalid_request_error", "code": "bad"}}, 400)
    openai_server.enqueue(refusal)
    assert chat(router, key).status_code == 400
    day = account(router).day
    assert day.spent_usd == day.held_usd == router.records(1)[0]["kept_usd"] == 0.0


def test_an_unreachable_upstream_releases_the_hold(limited):
    unreachable = {"openai_base_url": "http://127.0.0.1:9/v1", "max_attempts": 1}
    router, key = limited(usd_a_day=1.0, settings={**UPSTREAM, **unreachable})
    assert chat(router, key).status_code == 502
    day = account(router).day
    assert day.spent_usd == day.held_usd == 0.0


# spending survives a restart


def test_after_a_restart_spending_is_read_from_journal_and_tables(limited, start_router, openai_server, create_store):
    router, key = limited(usd_a_day=1.0)
    openai_server.enqueue(*(big_stream() for _ in range(4)), big_stream(usage=False))
    for number in range(5):
        assert chat(router, key, stream=True).status_code == 200
        if number == 2:  # three records are in the tables and two only in the journal
            settings = load(home=router.home, mlflow_tracking_uri=create_store(router.home / "store"))
            router.records(3)
            drain(shippers_for(settings)[0][:1])
    before = account(router).day.spent_usd
    assert before == pytest.approx(4 * ANSWER_USD + router.records(5)[4]["kept_usd"]) and before > 0.2
    router.close()

    again = RunningRouter(router.home, openai_base_url=openai_server.url, **UPSTREAM)
    try:
        assert chat(again, key, max_tokens=1).status_code == 200
        last = again.records(6)[-1]["cost_usd"]
        assert account(again).day.spent_usd == account(again).month.spent_usd == pytest.approx(before + last)
    finally:
        again.close()


def test_a_request_in_tables_and_journal_is_counted_once(tmp_path, create_store):
    journal = Journal(tmp_path / "journal")
    for number in range(6):
        key = "ada" if number != 3 else "adam"
        costs = {"cost_usd": None, "kept_usd": 0.25} if number == 4 else {"cost_usd": 0.5}
        started = NOON - (DAY_NS if number == 5 else 0) + number
        record = make_record(number, key_id=key, started_unix_ns=started, ended_unix_ns=started + 10, **costs)
        journal.append(record)
    settings = load(home=tmp_path, mlflow_tracking_uri=create_store(tmp_path / "store"))

    def read_spending(until_unix_ns=NOON + DAY_NS):
        bounds = day_of(NOON).starts_unix_ns, month_of(NOON).starts_unix_ns
        return spent(settings.usage_url, tmp_path / "journal", ADA, *bounds, until_unix_ns)

    assert read_spending() == (1.75, 2.25)
    (shipper,) = shippers_for(settings)[0][:1]
    drain([shipper])
    assert read_spending() == (1.75, 2.25)
    Cursor(tmp_path / "journal", "usage").path.unlink()  # as if the exporter had ended before it stored its position
    assert read_spending() == (1.75, 2.25)
    assert read_spending(NOON + 12) == (1.0, 1.5)  # the router itself counts later requests
    journal.close()


def test_spending_is_read_from_tables_of_an_earlier_version(tmp_path, create_store):
    journal = Journal(tmp_path / "journal")
    journal.append(make_record(0, key_id="ada", started_unix_ns=NOON, ended_unix_ns=NOON + 1, cost_usd=0.5))
    journal.close()
    settings = load(home=tmp_path, mlflow_tracking_uri=create_store(tmp_path / "store"))
    drain(shippers_for(settings)[0][:1])
    with contextlib.closing(sqlite3.connect(tmp_path / "usage.db")) as tables:
        tables.execute("ALTER TABLE router_requests DROP COLUMN kept_usd")
    bounds = day_of(NOON).starts_unix_ns, month_of(NOON).starts_unix_ns, NOON + DAY_NS
    assert spent(settings.usage_url, tmp_path / "journal", ADA, *bounds) == (0.5, 0.5)


def test_earlier_spending_counts_against_a_new_budget(limited, openai_server):
    router, key = limited()
    openai_server.enqueue(*(big_stream() for _ in range(3)))
    for _ in range(3):
        assert chat(router, key, stream=True).status_code == 200
    change_roster(router.home, issuing.set_limits, "ada", {"usd_a_day": str(2.5 * ANSWER_USD)})
    assert until(lambda: chat(router, key).status_code == 429)
    assert "has spent $0.12" in chat(router, key).json()["error"]["message"]
    change_roster(router.home, issuing.set_limits, "ada", {"usd_a_day": "1"})
    assert until(lambda: chat(router, key).status_code == 200)


def test_a_key_whose_spending_cannot_be_read_is_rejected(limited, openai_server, tmp_path):
    router, key = limited(
        settings={**UPSTREAM, "usage_database": f"sqlite:///{tmp_path}/nowhere/usage.db"}, usd_a_day=1
    )
    response = chat(router, key)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "limits_unknown")
    (tmp_path / "nowhere").mkdir()
    assert chat(router, key).status_code == 200
    assert len(openai_server.received) == 1


# the clock


def open_account(now=NOON, owner=ADA, **limits) -> Account:
    account = Account(owner, now)
    account.limit(Limits(**limits))
    return account


def place_hold(account, maximum, now):
    return hold([account], maximum, now)


def test_a_day_ends_at_midnight_in_utc_and_a_month_with_its_last_day():
    key = open_account(usd_a_day=1.0, usd_a_month=1.5)
    end_of_day = NOON + DAY_NS // 2
    place_hold(key, Most(0.9, 0, 0), NOON)
    with pytest.raises(QuotaError):
        place_hold(key, Most(0.2, 0, 0), end_of_day - 1)
    place_hold(key, Most(0.2, 0, 0), end_of_day)  # a new day, and the same month
    with pytest.raises(QuotaError, match="a month"):
        place_hold(key, Most(0.5, 0, 0), end_of_day)
    place_hold(key, Most(1.0, 0, 0), int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) * 10**9)


def test_a_request_over_midnight_is_settled_on_its_first_day():
    key = open_account(usd_a_day=1.0)
    late, midnight = place_hold(key, Most(0.9, 0, 0), NOON), NOON + DAY_NS // 2
    place_hold(key, Most(0.5, 0, 0), midnight)
    late.settle(make_record(0, cost_usd=0.8))
    late.settle(make_record(0, cost_usd=0.8))
    assert (key.day.spent_usd, key.day.held_usd) == (0.0, 0.5)
    assert key.month.spent_usd == 0.8 and key.month.held_usd == pytest.approx(0.5)


def test_spending_without_limits_counts_on_its_own_day():
    key = open_account(usd_a_day=1.0)
    key.spend(0.7, NOON)
    key.spend(0.4, NOON + DAY_NS)
    assert (key.day.spent_usd, key.month.spent_usd) == (0.4, pytest.approx(1.1))
    place_hold(key, Most(0.5, 0, 0), NOON + DAY_NS)


# requests and tokens a minute


def test_the_request_rate_is_reported_in_openais_headers(limited, openai_server):
    router, key = limited(requests_a_minute=2)
    assert [chat(router, key).status_code for _ in range(2)] == [200, 200]
    response = chat(router, key)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (429, "rate_limit_exceeded", "requests")
    assert "requests per min (RPM): Limit 2, Used 2, Requested 1. Please try again in 29" in error["message"]
    assert 29 <= int(response.headers["retry-after"]) <= 30
    assert (
        response.headers["x-ratelimit-limit-requests"] == "2"
        and response.headers["x-ratelimit-remaining-requests"] == "0"
    )
    assert response.headers["x-ratelimit-reset-requests"].startswith("59.") and "x-should-retry" not in response.headers
    assert "x-ratelimit-limit-tokens" not in response.headers
    assert len(openai_server.received) == 2 and router.records(3)[2]["status"] == 429


UPSTREAM_RATES = {"x-ratelimit-limit-requests": "9", "x-ratelimit-remaining-tokens": "1"}


def rate_headers(answer):
    return {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit-")}


def test_an_answer_reports_the_rates_of_its_key_instead_of_the_upstreams(limited, openai_server):
    router, key = limited(requests_a_minute=10)
    openai_server.models = json_reply({"object": "list", "data": []}, **UPSTREAM_RATES)
    stream = big_stream()
    embedded = {"object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 1}}
    openai_server.enqueue(
        json_reply(completion(MODEL), **UPSTREAM_RATES),
        replace(stream, headers=[*stream.headers, *UPSTREAM_RATES.items()]),
        json_reply(embedded, **UPSTREAM_RATES),
        json_reply({"error": {"message": "slow down"}}, 400, **UPSTREAM_RATES),
    )
    for remaining, answer in (
        ("9", chat(router, key)),
        ("8", chat(router, key, stream=True)),
        ("7", ask(router, "/v1/embeddings", key, {"model": "text-embedding-3-small", "input": "x"})),
    ):
        replacement = rate_headers(answer)
        assert answer.status_code == 200 and replacement.pop("x-ratelimit-reset-requests").endswith("s")
        assert replacement == {"x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": remaining}
    assert rate_headers(chat(router, key)) == UPSTREAM_RATES  # an error keeps the upstream's headers
    assert rate_headers(ask(router, "/v1/models", key)) == {}


def test_an_answer_to_a_key_without_rates_reports_the_upstreams(limited, openai_server):
    router, key = limited(usd_a_day=5.0)
    openai_server.enqueue(json_reply(completion(MODEL), **UPSTREAM_RATES))
    assert rate_headers(chat(router, key)) == UPSTREAM_RATES


def test_the_official_client_waits_for_retry_after_and_is_answered(limited, openai_server):
    router, key = limited(requests_a_minute=60)
    assert chat(router, key).status_code == 200
    bucket = account(router)._requests
    bucket.left = 0.0
    with openai.OpenAI(base_url=router.url, api_key=key, max_retries=1) as client:
        start = time.monotonic()
        assert client.chat.completions.create(**body()).choices
        assert 0.8 < time.monotonic() - start < 5
        bucket.left = -100.0
        with pytest.raises(openai.RateLimitError) as error:
            client.with_options(max_retries=0).chat.completions.create(**body())
    assert error.value.code == "rate_limit_exceeded" and int(error.value.response.headers["retry-after"]) > 60
    assert error.value.response.headers["x-ratelimit-reset-requests"].startswith("2m")


def test_the_token_rate_counts_used_tokens(limited, openai_server):
    router, key = limited(tokens_a_minute=10_000)
    openai_server.enqueue(json_reply(completion(MODEL, prompt_tokens=5000, completion_tokens=1000)))
    assert chat(router, key).status_code == 200
    response = chat(router, key, max_tokens=4096)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (429, "rate_limit_exceeded", "tokens")
    assert response.headers["x-ratelimit-limit-tokens"] == "10000"
    assert 3990 <= int(response.headers["x-ratelimit-remaining-tokens"]) <= 4200
    assert chat(router, key, max_tokens=100).status_code == 200
    too_large = chat(router, key, max_tokens=12_000)
    assert "Request too large" in too_large.json()["error"]["message"]
    assert too_large.headers["x-should-retry"] == "false"
    assert len(openai_server.received) == 2


def test_a_rate_refills_evenly_up_to_its_limit():
    key = open_account(requests_a_minute=60)
    second = 10**9
    for _ in range(60):
        place_hold(key, Most(0, 0, 0), NOON)
    with pytest.raises(RateLimitError):
        place_hold(key, Most(0, 0, 0), NOON)
    place_hold(key, Most(0, 0, 0), NOON + second)
    with pytest.raises(RateLimitError):
        place_hold(key, Most(0, 0, 0), NOON + second)
    with pytest.raises(RateLimitError):  # a clock that is set back refills nothing
        place_hold(key, Most(0, 0, 0), NOON - 60 * second)
    for _ in range(60):
        place_hold(key, Most(0, 0, 0), NOON + 3600 * second)
    with pytest.raises(RateLimitError):
        place_hold(key, Most(0, 0, 0), NOON + 3600 * second)


def test_durations_have_openais_format():
    replacement = [duration(seconds) for seconds in (0, 0.02, 1, 8.64, 60, 360, 3661.5)]
    assert replacement == ["0s", "20ms", "1s", "8.64s", "1m0s", "6m0s", "1h1m1.5s"]


# passed-through requests


def test_the_hold_of_an_embedding_is_settled_by_its_usage(limited, openai_server):
    router, key = limited(usd_a_day=0.01, requests_a_minute=3)
    usage = {"object": "list", "model": "text-embedding-3-large", "usage": {"prompt_tokens": 10, "total_tokens": 10}}
    openai_server.enqueue(json_reply({"data": ["x" * 2_000_000], **usage}))
    small = {"model": "text-embedding-3-large", "input": "x"}
    assert ask(router, "/v1/embeddings", key, small).status_code == 200
    record = router.records(1)[0]
    assert record["cost_usd"] == pytest.approx(10 * 0.13e-6) and account(router).day.spent_usd == record["cost_usd"]
    assert openai_server.received[0].header("accept-encoding") == "identity"
    large = ask(router, "/v1/embeddings", key, {**small, "input": "x" * 100_000})
    assert (large.status_code, large.json()["error"]["code"]) == (429, "insufficient_quota")
    assert ask(router, "/v1/models/gpt-4o", key).status_code == 200
    openai_server.enqueue(json_reply({"object": "list", "model": "text-embedding-3-large"}))
    assert ask(router, "/v1/embeddings", key, small).status_code == 200
    record_without_usage = router.records(4)[3]
    assert (
        record_without_usage["cost_usd"] is None
        and account(router).day.spent_usd == record["cost_usd"] + record_without_usage["kept_usd"]
    )
    response = ask(router, "/v1/embeddings", key, small)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert len([request for request in openai_server.received if request.method == "POST"]) == 2


def test_a_client_that_disconnects_from_an_embedding_pays_its_hold(limited, openai_server):
    price = {"usd_per_million_input_tokens": 0.13, "usd_per_million_output_tokens": 0.0}
    router, key = limited(settings={**UPSTREAM, "models": {"e": price}}, usd_a_day=0.01)
    openai_server.enqueue(Reply(wait=30.0))
    with pytest.raises(httpx2.ReadTimeout):
        headers = {"authorization": f"Bearer {key}"}
        httpx2.post(router.url + "/embeddings", json={"model": "e", "input": "x"}, headers=headers, timeout=0.5)
    record = router.records(1)[0]
    assert record["outcome"] == "abandoned" and account(router).day.spent_usd == record["kept_usd"] > 0.0
    assert account(router).day.held_usd == 0.0


# the command line, and several workers


def test_the_command_sets_changes_shows_and_removes_limits(tmp_path):
    def keys(*arguments):
        return command("keys", *arguments, ROUTER_HOME=str(tmp_path), COLUMNS="200")

    options = ("--usd-a-day", "5", "--usd-a-month", "50", "--requests-a-minute", "60", "--tokens-a-minute", "100000")
    assert keys("add", "ada", *options).returncode == 0
    assert read_keys(tmp_path / KEYS_FILE)[0].limits == Limits(5.0, 50.0, 60, 100_000)
    output = keys("show", "ada").stdout
    for expected in ("$5 a day", "$50 a month", "60 requests a minute", "100000 tokens a minute"):
        assert expected in output, expected
    assert keys("limit", "ada", "--usd-a-day", "2.5", "--usd-a-month", "none").returncode == 0
    (expected,) = json.loads(keys("list", "--json").stdout)
    assert expected["limits"] == {"usd_a_day": 2.5, "requests_a_minute": 60, "tokens_a_minute": 100_000}
    for invalid_options in (
        ("--usd-a-day", "0"),
        ("--usd-a-day", "nan"),
        ("--requests-a-minute", "1.5"),
        ("--tokens-a-minute", "x"),
    ):
        result = keys("limit", "ada", *invalid_options)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1) and invalid_options[0] in result.stderr
    assert keys("limit", "bob", "--usd-a-day", "1").returncode == 2
    result = command("serve", "--workers", "2", "--port", "0", ROUTER_HOME=str(tmp_path))
    assert result.returncode == 2 and "set ROUTER_STATE" in result.stderr


def test_a_floor_requires_a_budget_and_a_soft_share_requires_a_floor():
    for options, missing_option in (({"floor": "0.9"}, "--usd-a-day"), ({"usd_a_day": "1", "soft": "0.5"}, "--floor")):
        with pytest.raises(SettingsError, match=missing_option):
            issuing.parse_limits(options)
    for invalid_options in ({"soft": "1"}, {"floor": "1.1"}, {"floor": "x"}):
        with pytest.raises(SettingsError, match="a share"):
            issuing.parse_limits({"usd_a_day": "1", "floor": "0.9", **invalid_options})
    assert issuing.parse_limits({"usd_a_day": "1", "floor": "0.9"}).floor == 0.9


def test_auto_uses_the_floor_after_most_of_a_budget_is_spent(limited, openai_server):
    router, key = limited(usd_a_day=1.0, floor=0.5)

    def ask_model(model):
        answer = chat(router, key, model)
        return answer.headers["x-router-model"], answer.headers["x-router-reason"]

    strong = ask_model("auto@1")
    assert strong[0] == "gpt-4o" and strong[1] != "budget"
    account(router).day.spent_usd = 0.79
    assert ask_model("auto@1") == strong
    account(router).day.spent_usd = 0.8
    assert ask_model("auto@1") == ("gpt-4o-mini", "budget")
    assert ask_model("auto@0.4")[1] != "budget"  # the target is already lower
    assert ask_model("gpt-4o") == ("gpt-4o", "passed_through")
    record = router.records(3)[2]
    assert (record["reason"], record["target"]) == ("budget", 0.5)
    account(router).limit(Limits(usd_a_day=1.0, floor=0.999))
    assert account(router).floor(time.time_ns()) == 0.999


def test_a_rotated_key_keeps_its_limits():
    keys, _ = issuing.add((), "ada", 1.0, limits=Limits(usd_a_day=1.0))
    keys, _ = issuing.rotate(keys, "ada", 2.0, 0)
    assert keys[0].limits == Limits(usd_a_day=1.0)
    with pytest.raises(SettingsError, match="is revoked"):
        issuing.set_limits(issuing.revoke(keys, "ada", 3.0), "ada", {"usd_a_day": "1"})


def test_several_workers_reject_keys_with_limits(limited, openai_server):
    router, key = limited(usd_a_day=1.0)
    router.app.worker.limiter._alone = False
    response = chat(router, key)
    assert response.status_code == 503 and "several workers" in response.json()["error"]["message"]
    assert openai_server.received == []
    health = httpx2.get(router.origin + "/health").json()
    assert any("several workers" in replacement for replacement in health["warnings"])


def test_concurrent_requests_do_not_exceed_the_rate(limited, openai_server):
    router, key = limited(requests_a_minute=10)
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: chat(router, key).status_code, range(40)))
    assert statuses.count(200) in (10, 11) and len(openai_server.received) == statuses.count(200)


# cost of the limits


def test_limits_add_at_most_50_function_calls_per_request(tmp_path):
    limits = {"usd_a_day": 1e6, "usd_a_month": 1e6, "requests_a_minute": 10**9, "tokens_a_minute": 10**11, "floor": 0.9}
    free = min(count_calls(tmp_path / f"free-{n}", None) for n in range(3))  # admission rounds vary between runs
    assert 1 < min(count_calls(tmp_path / f"limited-{n}", Limits(**limits)) for n in range(3)) - free <= 50


def count_calls(home, limits):
    """Function calls per request, from the raw profile: pstats merges functions of the same name and line."""
    key = create_key(home, "ada", limits=limits)
    app = hot_path.application(home)
    head = [(b"host", b"127.0.0.1"), (b"authorization", b"Bearer " + key.encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": head, "query_string": b""}

    async def send_one(content):
        coming = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive():
            return coming.pop() if coming else await asyncio.sleep(60)

        async def send(message):
            assert message.get("status", 200) == 200

        await app({**scope}, receive, send)

    async def profiled():
        for content in hot_path.bodies(20):
            await send_one(content)
        profile, contents = cProfile.Profile(), list(hot_path.bodies(100))
        profile.enable()
        for content in contents:
            await send_one(content)
        profile.disable()
        return sum(entry.callcount for entry in profile.getstats()) / len(contents)

    calls = asyncio.run(profiled())
    app.worker.close()
    return calls
