"""Limits that workers share in a real Redis: the decisions of a single worker, and exact sums."""

import asyncio
import contextlib
import ipaddress
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from cryptography import x509
from redis_server import RedisServer
from servers import free_port, is_listening
from synthetic_records import make_record
from test_keys import UPSTREAM, ask, create_key
from test_limits import (
    ADA,
    ANSWER_USD,
    DAY_NS,
    NOON,
    TEAM,
    account,
    big_stream,
    body,
    chat,
    limited_keys,
    open_account,
    send_many,
)
from test_upstream_tls import certificate
from waiting import until

from router import admission
from router.client.keyfile import Limits
from router.commands.doctor.finding import State
from router.commands.doctor.stores import redis as doctor_redis
from router.errors import LimitsError, QuotaError, RateLimitError
from router.limits import link
from router.limits import shared as shared_limits
from router.limits.account import MINUTE_NS
from router.limits.booking import hold
from router.limits.bound import Most
from router.limits.shared import Shared
from router.limits.spent import Spent
from router.policy.network import Network
from router.settings import KEYS_FILE, SettingsError, load


@pytest.fixture
def redis(tmp_path):
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def pair(start_router, openai_server, redis, tmp_path):
    """A function that starts two routers with shared keys, limits and usage tables; returns both and the keys."""

    def start(settings=UPSTREAM, owner=ADA, **limits):
        keys = limited_keys(tmp_path / "shared", owner, **limits)
        options = {"openai_base_url": openai_server.url, "state": redis.url, **settings}
        options["keys_file"] = tmp_path / "shared" / KEYS_FILE
        options["usage_database"] = f"sqlite:///{tmp_path / 'usage.db'}"
        return *(start_router(home=tmp_path / f"replica-{number}", **options) for number in range(2)), *keys

    return start


def costs(*routers):
    return sum(
        (record["cost_usd"] or 0.0) + record["kept_usd"] for router in routers for record in router.records(0, 0.1)
    )


async def flush(redis):
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    writer.write(b"FLUSHALL\r\n")
    assert await reader.readline() == b"+OK\r\n"
    writer.close()


async def nothing_spent(*arguments):
    return Spent(0.0, 0.0)


@contextlib.asynccontextmanager
async def connected(redis, ledger=nothing_spent, failure="closed"):
    shared = Shared(redis.url, failure, ledger)
    async with shared.running():
        while not shared.link._run:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        yield shared


# same decisions as one worker


async def held_alone(accounts, maximum, now, billed):
    return hold(accounts, maximum, now, billed=billed)


async def outcome(holding):
    try:
        booking = await holding
    except (QuotaError, RateLimitError) as error:
        return error.message, error.headers, None
    return "held", booking, booking.rates()


@pytest.mark.parametrize("seed", range(4))
async def test_redis_decides_like_a_single_worker(redis, seed, monkeypatch):
    """Random holds and settlements over minutes and midnight, with amounts that floats represent exactly.

    An odd seed uses two keys of a team, with and without their own limits.
    """
    monkeypatch.setattr(shared_limits, "LAPSE_SECONDS", 1e6)
    chance = random.Random(seed)
    limits = {"usd_a_day": 4.0, "usd_a_month": 6.0, "requests_a_minute": 40, "tokens_a_minute": 2000}
    if seed > 1:
        del limits["usd_a_month"]

    def make_accounts():
        if seed % 2 == 0:
            return [[open_account(**limits)]]
        team = open_account(owner=TEAM, **limits)
        return [[open_account(usd_a_day=3.0, requests_a_minute=25, tokens_a_minute=2500), team], [team]]

    ours_alone, ours_shared = make_accounts(), make_accounts()
    async with connected(redis) as shared:
        now, bookings, verdicts = NOON, [], set()
        for step in range(300):
            now += chance.choice((0, MINUTE_NS // 200, MINUTE_NS // 20, DAY_NS // 60))
            if bookings and chance.random() < 0.5:
                own_booking, shared_booking = bookings.pop(chance.randrange(len(bookings)))
                usage = {"input_tokens": chance.randint(0, 64), "output_tokens": 16}
                cost = chance.choice((None, chance.randint(0, 64) / 512))
                record = make_record(
                    step, cost_usd=cost, usage=usage, started_unix_ns=now, ended_unix_ns=time.time_ns()
                )
                own_booking.settle(record)
                shared_booking.settle(record)
                continue
            maximum = Most(chance.choice((0, 8, 60, 400)) / 512, chance.randint(0, 300), chance.randint(100, 1500))
            billed, account_index = chance.random() < 0.9, chance.randrange(len(ours_alone))
            own_account, shared_account = ours_alone[account_index], ours_shared[account_index]
            answers = [
                await outcome(held_alone(own_account, maximum, now, billed)),
                await outcome(shared.hold(shared_account, maximum, now, billed=billed)),
            ]
            (own_error, own_booking, rates), (told_by_redis, shared_booking, rates_by_redis) = answers
            assert told_by_redis == own_error
            verdicts |= {own_error.split(" key")[0].split(" team")[0], "team" if " team research" in own_error else ""}
            if own_error == "held":
                assert rates_by_redis == rates
                bookings.append((own_booking, shared_booking))
            else:
                assert shared_booking == own_booking
            for own_booking, shared_booking in zip(own_account, shared_account, strict=True):
                for period, mirrored in (
                    (own_booking.day, shared_booking.day),
                    (own_booking.month, shared_booking.month),
                ):
                    assert (mirrored.spent_usd, mirrored.held_usd) == (period.spent_usd, period.held_usd)
    assert {"held", "You exceeded your current quota:", "Rate limit reached for"} <= verdicts
    assert ("team" in verdicts) == bool(seed % 2)


# over HTTP


@pytest.mark.parametrize("owner", [ADA, TEAM], ids=str)
def test_200_concurrent_streams_on_two_replicas_spend_no_more_than_the_dollar_left(
    pair, openai_server, monkeypatch, owner
):
    monkeypatch.setattr(admission, "MAX_WAIT_SECONDS", 60.0)  # the machine may be busy
    monkeypatch.setattr(link, "CALL_SECONDS", 10.0)
    first_router, second_router, *keys = pair(owner=owner, usd_a_day=1.0)
    openai_server.enqueue(*(big_stream(wait=1.0) for _ in range(400)))
    with ThreadPoolExecutor(2) as threads:
        halves = [threads.submit(asyncio.run, send_many(router, keys, 100)) for router in (first_router, second_router)]
        answers = [answer for future in halves for answer in future.result()]
    answered_count = [status for status, _ in answers].count(200)
    assert {status for status, _ in answers} == {200, 429}
    assert len(openai_server.received) == answered_count and 15 <= answered_count <= 1.0 / ANSWER_USD
    first_router.records(100), second_router.records(100)
    key = keys[-1]
    while sum(
        chat(router, key, stream=True).status_code == 200 for router in (first_router, second_router)
    ):  # spend the rest one by one
        pass
    cost = costs(first_router, second_router)
    assert 1.0 - 2 * ANSWER_USD < cost <= 1.0
    for router in (first_router, second_router):
        assert chat(router, key).headers["x-should-retry"] == "false"
        assert account(router, owner).day.spent_usd == pytest.approx(cost, abs=1e-6)
        assert account(router, owner).day.held_usd == pytest.approx(0.0, abs=1e-9)


def test_the_request_rate_counts_all_replicas(pair):
    first_router, second_router, key = pair(requests_a_minute=3)
    assert [chat(router, key).status_code for router in (first_router, second_router, first_router, second_router)] == [
        200,
        200,
        200,
        429,
    ]
    response = chat(first_router, key)
    assert response.json()["error"]["message"].startswith(
        "Rate limit reached for key ada on requests per min (RPM): Limit 3"
    )
    assert response.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_redis_that_restarts_empty_agrees_with_the_ledger_to_the_cent(pair, openai_server, redis):
    first_router, second_router, key = pair(usd_a_day=2.0)
    openai_server.enqueue(*(big_stream() for _ in range(5)), *(big_stream(wait=0.8) for _ in range(4)), big_stream())
    for _ in range(5):
        assert chat(first_router, key, stream=True).status_code == 200
    with ThreadPoolExecutor(4) as threads:
        under_way = [threads.submit(chat, first_router, key, stream=True) for _ in range(4)]
        assert until(lambda: len(openai_server.received) == 9)
        redis.kill()
        assert until(lambda: first_router.app.worker.limiter.away)
        response = chat(first_router, key)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "limits_unknown")
        assert response.headers["retry-after"] == "1"
        assert "Redis at redis://127.0.0.1" in str(httpx2.get(first_router.origin + "/health").json()["warnings"])
        assert "redis://" not in response.text
        redis.start()
        assert until(lambda: not first_router.app.worker.limiter.away and not second_router.app.worker.limiter.away)
        assert chat(first_router, key, stream=True).status_code == 200  # while four requests are in progress
        assert account(first_router).day.held_usd > 0.1 or all(future_answer.done() for future_answer in under_way)
        assert [future_answer.result().status_code for future_answer in under_way] == [200] * 4
    first_router.records(11)
    assert chat(first_router, key, max_tokens=1).status_code == 200
    assert until(
        lambda: account(first_router).day.spent_usd == pytest.approx(costs(first_router, second_router), abs=1e-6)
    )
    assert account(first_router).day.held_usd == pytest.approx(0.0, abs=1e-9)
    assert costs(first_router, second_router) == pytest.approx(10 * ANSWER_USD, abs=1e-3)


@pytest.mark.parametrize("flushed", ["before", "while"])
async def test_holds_and_settlements_are_sent_again_to_a_flushed_redis(redis, flushed):
    """The ledger is empty, so all sums come from the holds and settlements of two workers."""
    async with connected(redis) as first_worker, connected(redis) as second_worker:
        first_account, second_account = open_account(usd_a_day=10.0), open_account(usd_a_day=10.0)
        first_hold = await first_worker.hold([first_account], Most(1.0, 0, 0), time.time_ns())
        second_hold = await second_worker.hold([second_account], Most(2.0, 0, 0), time.time_ns())
        await flush(redis)
        if flushed == "before":
            second_hold.settle(make_record(0, cost_usd=0.5, ended_unix_ns=time.time_ns() + 10**9))
            await second_worker.link.drain(1)  # to a Redis that does not have the account
        await first_worker.hold([first_account], Most(0.25, 0, 0), time.time_ns())
        assert first_account.day.held_usd == 1.25
        await second_worker.hold([second_account], Most(0.25, 0, 0), time.time_ns())
        await second_worker.link.drain(1)
        await asyncio.sleep(0.05)
        await second_worker.hold([second_account], Most(0.25, 0, 0), time.time_ns())
        if flushed == "before":
            assert (second_account.day.spent_usd, second_account.day.held_usd) == (0.5, 1.75)
        else:
            assert (second_account.day.spent_usd, second_account.day.held_usd) == (0.0, 3.75)
        first_hold.settle(make_record(1, cost_usd=0.125, ended_unix_ns=time.time_ns() + 10**9))
        await first_worker.link.drain(1)
        await first_worker.hold([first_account], Most(0.0, 0, 0), time.time_ns())
        assert first_account.day.held_usd == second_account.day.held_usd - 1.0


async def test_a_repeated_settlement_counts_once(redis):
    async with connected(redis) as shared:
        first_account = open_account(usd_a_day=10.0)
        booking = await shared.hold([first_account], Most(1.0, 0, 0), time.time_ns())
        ended = time.time_ns() + 10**9
        (share,) = booking.shares
        for born in (share.born, share.born, "", ""):
            share.born = born
            shared.settle(share, ended, 0.25, 0)
        await shared.link.drain(1)
        late = await shared.hold([first_account], Most(1.0, 0, 0), time.time_ns())
        for _ in range(2):
            late.shares[0].born = "another"
            shared.settle(late.shares[0], ended, 0.25, 0)
        await shared.link.drain(1)
        assert (first_account.day.spent_usd, first_account.day.held_usd) == (0.75, 0.0)


async def test_the_holds_of_an_ended_worker_count_as_spent_until_it_returns(redis, monkeypatch):
    monkeypatch.setattr(shared_limits, "LAPSE_SECONDS", 0.1)
    async with connected(redis) as first_worker, connected(redis) as second_worker:
        first_account, second_account = open_account(usd_a_day=1.0), open_account(usd_a_day=1.0)
        now = time.time_ns()
        booking = await first_worker.hold([first_account], Most(0.75, 0, 0), now)
        with pytest.raises(QuotaError) as waits:
            await second_worker.hold([second_account], Most(0.5, 0, 0), now)
        assert waits.value.again
        with pytest.raises(QuotaError) as error:
            await second_worker.hold([second_account], Most(0.5, 0, 0), now + 10**9)
        assert not error.value.again and second_account.day.spent_usd == 0.75
        booking.settle(make_record(0, cost_usd=0.25, ended_unix_ns=now + 10**9))  # the worker was only slow
        await first_worker.link.drain(1)
        await second_worker.hold([second_account], Most(0.5, 0, 0), now + 10**9)
        assert (second_account.day.spent_usd, second_account.day.held_usd) == (0.25, 0.5)


async def test_open_holds_are_renewed(redis, monkeypatch):
    monkeypatch.setattr(shared_limits, "LAPSE_SECONDS", 0.5)
    monkeypatch.setattr(shared_limits, "RENEW_SECONDS", 0.1)
    async with connected(redis) as first_worker, connected(redis) as second_worker:
        first_account, second_account = open_account(usd_a_day=1.0), open_account(usd_a_day=1.0)
        await first_worker.hold([first_account], Most(0.75, 0, 0), time.time_ns())
        await asyncio.sleep(0.8)
        with pytest.raises(QuotaError) as waits:
            await second_worker.hold([second_account], Most(0.5, 0, 0), time.time_ns())
        assert waits.value.again


async def test_late_exports_of_replicas_are_corrected(redis, monkeypatch):
    monkeypatch.setattr(shared_limits, "CORRECT_SECONDS", 0.1)
    known = [Spent(0.25, 0.5)]

    async def ledger(*arguments):
        return known[0]

    async with connected(redis, ledger) as shared:
        first_account = open_account(usd_a_day=1.0)
        booking = await shared.hold([first_account], Most(0.125, 0, 0), time.time_ns())
        known[0] = Spent(0.375, 0.25)
        booking.settle(make_record(0, cost_usd=0.125, ended_unix_ns=time.time_ns() + 10**9))
        await asyncio.sleep(0.2)
        await shared.hold([first_account], Most(0.0, 0, 0), time.time_ns())
        assert (first_account.day.spent_usd, first_account.month.spent_usd) == (0.5, 0.625)


# without Redis


def test_with_failure_open_a_worker_enforces_limits_and_updates_redis_later(pair, openai_server, redis):
    redis.kill()
    first_router, second_router, key = pair({**UPSTREAM, "state_failure": "open"}, usd_a_day=0.1)
    openai_server.enqueue(*(big_stream() for _ in range(3)))
    assert [chat(first_router, key, stream=True).status_code for _ in range(3)] == [200, 200, 429]
    redis.start()
    assert until(lambda: not first_router.app.worker.limiter.away and not second_router.app.worker.limiter.away)
    assert until(lambda: chat(first_router, key).status_code == 429)
    assert account(first_router).day.spent_usd == pytest.approx(2 * ANSWER_USD)
    response = chat(second_router, key, stream=True)
    assert response.status_code == 429 and "has spent $0.080100 of $0.1 a day" in response.text
    assert len(openai_server.received) == 2


def test_keys_without_limits_are_answered_without_redis(pair, start_router, openai_server, redis, tmp_path):
    redis.kill()
    home = tmp_path / "shared"
    free, admin = create_key(home, "bob"), create_key(home, "root", admin=True)
    first_router, _, key = pair(usd_a_day=1.0)
    assert until(lambda: first_router.app.worker.limiter.away)
    start = time.monotonic()
    assert chat(first_router, key).status_code == 503
    assert time.monotonic() - start < 1.0
    assert chat(first_router, free).status_code == 200 and len(openai_server.received) == 1
    assert until(lambda: "router_state_away 1.0" in ask(first_router, "/metrics", admin).text)


async def test_a_silent_redis_times_out_after_a_quarter_of_a_second(redis):
    async with connected(redis) as shared:
        first_account = open_account(usd_a_day=1.0)
        await shared.hold([first_account], Most(0.5, 0, 0), time.time_ns())
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            with pytest.raises(LimitsError):
                await shared.hold([first_account], Most(0.25, 0, 0), time.time_ns())
            assert time.monotonic() - start < 0.6
        finally:
            os.kill(redis.pid, signal.SIGCONT)
        while shared.link.problem:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await shared.link.drain(1)
        await shared.hold([first_account], Most(0.5, 0, 0), time.time_ns())  # a rejected request leaves no hold


# settings


def test_the_address_of_redis_is_shown_without_its_login():
    settings = load(state="rediss://user:secret-password@redis.example.com:6380/1")
    assert "secret-password" not in repr(settings)
    assert Shared(settings.state.get_secret_value(), "closed", nothing_spent).link.address == (
        "rediss://[login]@redis.example.com:6380/1"
    )
    for invalid_url in ("http://user:secret-password@x", "redis://", "redis://h:0"):
        with pytest.raises(SettingsError, match="ROUTER_STATE") as error:
            load(state=invalid_url)
        assert "secret-password" not in str(error.value)


def test_doctor_checks_redis_and_shows_no_login(redis, closed_port):
    assert doctor_redis(redis.url, Network()).state == State.OK
    assert "ROUTER_USAGE_DATABASE must be set" in str(doctor_redis(redis.url, Network(), ["ROUTER_USAGE_DATABASE"]))
    finding = doctor_redis(f"redis://ada:secret@127.0.0.1:{closed_port}/0", Network())
    assert finding.state == State.PROBLEM and "secret" not in str(finding) and "ROUTER_STATE" in str(finding)


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.2"])
def test_redis_over_tls_requires_a_certificate_for_its_address(tmp_path, start_router, openai_server, name):
    chain, authority = certificate(tmp_path, x509.IPAddress(ipaddress.ip_address(name)))
    server = RedisServer(tmp_path, chain)
    try:
        key = create_key(tmp_path / "home-0", "ada", limits=Limits(requests_a_minute=5))
        settings = {"openai_base_url": openai_server.url, "state": server.url, "ca_bundle": authority, **UPSTREAM}
        router = start_router(**settings)
        status, state = (200, State.OK) if name == "127.0.0.1" else (503, State.PROBLEM)
        assert until(lambda: chat(router, key).status_code == status)
        assert doctor_redis(server.url, load(ca_bundle=authority).network).state == state
        assert doctor_redis(server.url, Network()).state == State.PROBLEM  # the system does not trust its authority
    finally:
        server.kill()


@pytest.mark.slow
def test_workers_of_one_router_share_the_limits_of_a_key(redis, openai_server, tmp_path):
    key = create_key(tmp_path / "w2", "ada", limits=Limits(requests_a_minute=5, usd_a_day=1.0))
    port, settings = free_port(), {"OPENAI_BASE_URL": openai_server.url, "OPENAI_API_KEY": "sk-upstream"}
    settings |= {"ROUTER_STATE": redis.url, "ROUTER_HOME": str(tmp_path / "w2")}
    command = [sys.executable, "-m", "router", "serve", "--workers", "2", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        served = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log, cwd=tmp_path)
    try:
        assert until(lambda: is_listening(port), 60), (tmp_path / "log").read_text()
        ask = {"headers": {"authorization": f"Bearer {key}"}, "json": body(max_tokens=1), "timeout": 30}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        with ThreadPoolExecutor(12) as threads:
            statuses = list(threads.map(lambda _: httpx2.post(url, **ask).status_code, range(12)))
        assert statuses.count(200) in (5, 6) and statuses.count(429) == 12 - statuses.count(200), statuses
    finally:
        served.terminate()
        served.wait(60)
