"""Limits that workers share in Redis, by a real Redis: the same answers as of one worker, and sums to the cent."""

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
from test_keys import UPSTREAM, ask, make
from test_limits import ADA, ANSWER_USD, DAY_NS, NOON, TEAM, account, big_stream, body, chat, limited_keys, many, opened
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
    """Starts two routers that share keys, limits and usage tables; gives both, and the keys that have the limits."""

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


async def nothing_spent(*given):
    return Spent(0.0, 0.0)


@contextlib.asynccontextmanager
async def connected(redis, ledger=nothing_spent, failure="closed"):
    made = Shared(redis.url, failure, ledger)
    async with made.running():
        while not made.link._run:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        yield made


# the same as one worker


async def held_alone(accounts, most, now, billed):
    return hold(accounts, most, now, billed=billed)


async def outcome(holding):
    try:
        booking = await holding
    except (QuotaError, RateLimitError) as error:
        return error.message, error.headers, None
    return "held", booking, booking.rates()


@pytest.mark.parametrize("seed", range(4))
async def test_redis_decides_like_a_single_worker(redis, seed, monkeypatch):
    """Random holds and settlements over minutes and midnight, with amounts that both count exactly.

    With an odd seed by two keys of a team, each with limits of its own or without.
    """
    monkeypatch.setattr(shared_limits, "LAPSE_SECONDS", 1e6)
    chance = random.Random(seed)
    limits = {"usd_a_day": 4.0, "usd_a_month": 6.0, "requests_a_minute": 40, "tokens_a_minute": 2000}
    if seed > 1:
        del limits["usd_a_month"]

    def made():
        if seed % 2 == 0:
            return [[opened(**limits)]]
        team = opened(owner=TEAM, **limits)
        return [[opened(usd_a_day=3.0, requests_a_minute=25, tokens_a_minute=2500), team], [team]]

    ours_alone, ours_shared = made(), made()
    async with connected(redis) as shared:
        now, bookings, verdicts = NOON, [], set()
        for step in range(300):
            now += chance.choice((0, MINUTE_NS // 200, MINUTE_NS // 20, DAY_NS // 60))
            if bookings and chance.random() < 0.5:
                one, other = bookings.pop(chance.randrange(len(bookings)))
                usage = {"input_tokens": chance.randint(0, 64), "output_tokens": 16}
                cost = chance.choice((None, chance.randint(0, 64) / 512))
                given = make_record(step, cost_usd=cost, usage=usage, started_unix_ns=now, ended_unix_ns=time.time_ns())
                one.settle(given)
                other.settle(given)
                continue
            most = Most(chance.choice((0, 8, 60, 400)) / 512, chance.randint(0, 300), chance.randint(100, 1500))
            billed, which = chance.random() < 0.9, chance.randrange(len(ours_alone))
            alone, ours = ours_alone[which], ours_shared[which]
            answers = [
                await outcome(held_alone(alone, most, now, billed)),
                await outcome(shared.hold(ours, most, now, billed=billed)),
            ]
            (told, one, rates), (told_by_redis, other, rates_by_redis) = answers
            assert told_by_redis == told
            verdicts |= {told.split(" key")[0].split(" team")[0], "team" if " team research" in told else ""}
            if told == "held":
                assert rates_by_redis == rates
                bookings.append((one, other))
            else:
                assert other == one
            for one, other in zip(alone, ours, strict=True):
                for period, mirrored in ((one.day, other.day), (one.month, other.month)):
                    assert (mirrored.spent_usd, mirrored.held_usd) == (period.spent_usd, period.held_usd)
    assert {"held", "You exceeded your current quota:", "Rate limit reached for"} <= verdicts
    assert ("team" in verdicts) == bool(seed % 2)


# the whole path


@pytest.mark.parametrize("owner", [ADA, TEAM], ids=str)
def test_200_concurrent_streams_on_two_replicas_spend_no_more_than_the_dollar_left(
    pair, openai_server, monkeypatch, owner
):
    monkeypatch.setattr(admission, "MAX_WAIT_SECONDS", 60.0)  # the machine may be busy: time is not what is tested
    monkeypatch.setattr(link, "CALL_SECONDS", 10.0)
    one, two, *keys = pair(owner=owner, usd_a_day=1.0)
    openai_server.enqueue(*(big_stream(wait=1.0) for _ in range(400)))
    with ThreadPoolExecutor(2) as threads:
        halves = [threads.submit(asyncio.run, many(router, keys, 100)) for router in (one, two)]
        answers = [answer for half in halves for answer in half.result()]
    answered = [status for status, _ in answers].count(200)
    assert {status for status, _ in answers} == {200, 429}
    assert len(openai_server.received) == answered and 15 <= answered <= 1.0 / ANSWER_USD
    one.records(100), two.records(100)
    key = keys[-1]
    while sum(chat(router, key, stream=True).status_code == 200 for router in (one, two)):  # what is left, one by one
        pass
    spent = costs(one, two)
    assert 1.0 - 2 * ANSWER_USD < spent <= 1.0
    for router in (one, two):
        assert chat(router, key).headers["x-should-retry"] == "false"
        assert account(router, owner).day.spent_usd == pytest.approx(spent, abs=1e-6)
        assert account(router, owner).day.held_usd == pytest.approx(0.0, abs=1e-9)


def test_the_request_rate_counts_all_replicas(pair):
    one, two, key = pair(requests_a_minute=3)
    assert [chat(router, key).status_code for router in (one, two, one, two)] == [200, 200, 200, 429]
    response = chat(one, key)
    assert response.json()["error"]["message"].startswith(
        "Rate limit reached for key ada on requests per min (RPM): Limit 3"
    )
    assert response.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_redis_that_restarts_empty_agrees_with_the_ledger_to_the_cent(pair, openai_server, redis):
    one, two, key = pair(usd_a_day=2.0)
    openai_server.enqueue(*(big_stream() for _ in range(5)), *(big_stream(wait=0.8) for _ in range(4)), big_stream())
    for _ in range(5):
        assert chat(one, key, stream=True).status_code == 200
    with ThreadPoolExecutor(4) as threads:
        under_way = [threads.submit(chat, one, key, stream=True) for _ in range(4)]
        assert until(lambda: len(openai_server.received) == 9)
        redis.kill()
        assert until(lambda: one.app.worker.limiter.away)
        response = chat(one, key)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "limits_unknown")
        assert response.headers["retry-after"] == "1"
        assert "Redis at redis://127.0.0.1" in str(httpx2.get(one.origin + "/health").json()["warnings"])
        assert "redis://" not in response.text
        redis.start()
        assert until(lambda: not one.app.worker.limiter.away and not two.app.worker.limiter.away)
        assert chat(one, key, stream=True).status_code == 200  # while four are under way
        assert account(one).day.held_usd > 0.1 or all(each.done() for each in under_way)
        assert [each.result().status_code for each in under_way] == [200] * 4
    one.records(11)
    assert chat(one, key, max_tokens=1).status_code == 200
    assert until(lambda: account(one).day.spent_usd == pytest.approx(costs(one, two), abs=1e-6))
    assert account(one).day.held_usd == pytest.approx(0.0, abs=1e-9)
    assert costs(one, two) == pytest.approx(10 * ANSWER_USD, abs=1e-3)


@pytest.mark.parametrize("when", ["before", "while"])
async def test_holds_and_settlements_are_sent_again_to_a_flushed_redis(redis, when):
    """Two workers; the ledger knows of nothing, so that all comes from holds and settlements."""
    async with connected(redis) as one, connected(redis) as other:
        ours, theirs = opened(usd_a_day=10.0), opened(usd_a_day=10.0)
        mine = await one.hold([ours], Most(1.0, 0, 0), time.time_ns())
        yours = await other.hold([theirs], Most(2.0, 0, 0), time.time_ns())
        await flush(redis)
        if when == "before":
            yours.settle(make_record(0, cost_usd=0.5, ended_unix_ns=time.time_ns() + 10**9))
            await other.link.drain(1)  # to a Redis that does not have the account
        await one.hold([ours], Most(0.25, 0, 0), time.time_ns())
        assert ours.day.held_usd == 1.25
        await other.hold([theirs], Most(0.25, 0, 0), time.time_ns())
        await other.link.drain(1)
        await asyncio.sleep(0.05)
        await other.hold([theirs], Most(0.25, 0, 0), time.time_ns())
        if when == "before":
            assert (theirs.day.spent_usd, theirs.day.held_usd) == (0.5, 1.75)
        else:
            assert (theirs.day.spent_usd, theirs.day.held_usd) == (0.0, 3.75)
        mine.settle(make_record(1, cost_usd=0.125, ended_unix_ns=time.time_ns() + 10**9))
        await one.link.drain(1)
        await one.hold([ours], Most(0.0, 0, 0), time.time_ns())
        assert ours.day.held_usd == theirs.day.held_usd - 1.0


async def test_a_repeated_settlement_counts_once(redis):
    async with connected(redis) as shared:
        ours = opened(usd_a_day=10.0)
        booking = await shared.hold([ours], Most(1.0, 0, 0), time.time_ns())
        ended = time.time_ns() + 10**9
        (share,) = booking.shares
        for born in (share.born, share.born, "", ""):
            share.born = born
            shared.settle(share, ended, 0.25, 0)
        await shared.link.drain(1)
        late = await shared.hold([ours], Most(1.0, 0, 0), time.time_ns())
        for _ in range(2):
            late.shares[0].born = "another"
            shared.settle(late.shares[0], ended, 0.25, 0)
        await shared.link.drain(1)
        assert (ours.day.spent_usd, ours.day.held_usd) == (0.75, 0.0)


async def test_the_holds_of_an_ended_worker_count_as_spent_until_it_returns(redis, monkeypatch):
    monkeypatch.setattr(shared_limits, "LAPSE_SECONDS", 0.1)
    async with connected(redis) as one, connected(redis) as other:
        ours, theirs = opened(usd_a_day=1.0), opened(usd_a_day=1.0)
        now = time.time_ns()
        booking = await one.hold([ours], Most(0.75, 0, 0), now)
        with pytest.raises(QuotaError) as waits:
            await other.hold([theirs], Most(0.5, 0, 0), now)
        assert waits.value.again
        with pytest.raises(QuotaError) as error:
            await other.hold([theirs], Most(0.5, 0, 0), now + 10**9)
        assert not error.value.again and theirs.day.spent_usd == 0.75
        booking.settle(make_record(0, cost_usd=0.25, ended_unix_ns=now + 10**9))  # it was only slow
        await one.link.drain(1)
        await other.hold([theirs], Most(0.5, 0, 0), now + 10**9)
        assert (theirs.day.spent_usd, theirs.day.held_usd) == (0.25, 0.5)


async def test_open_holds_are_renewed(redis, monkeypatch):
    monkeypatch.setattr(shared_limits, "LAPSE_SECONDS", 0.5)
    monkeypatch.setattr(shared_limits, "RENEW_SECONDS", 0.1)
    async with connected(redis) as one, connected(redis) as other:
        ours, theirs = opened(usd_a_day=1.0), opened(usd_a_day=1.0)
        await one.hold([ours], Most(0.75, 0, 0), time.time_ns())
        await asyncio.sleep(0.8)
        with pytest.raises(QuotaError) as waits:
            await other.hold([theirs], Most(0.5, 0, 0), time.time_ns())
        assert waits.value.again


async def test_late_exports_of_replicas_are_corrected(redis, monkeypatch):
    monkeypatch.setattr(shared_limits, "CORRECT_SECONDS", 0.1)
    known = [Spent(0.25, 0.5)]

    async def ledger(*given):
        return known[0]

    async with connected(redis, ledger) as shared:
        ours = opened(usd_a_day=1.0)
        booking = await shared.hold([ours], Most(0.125, 0, 0), time.time_ns())
        known[0] = Spent(0.375, 0.25)
        booking.settle(make_record(0, cost_usd=0.125, ended_unix_ns=time.time_ns() + 10**9))
        await asyncio.sleep(0.2)
        await shared.hold([ours], Most(0.0, 0, 0), time.time_ns())
        assert (ours.day.spent_usd, ours.month.spent_usd) == (0.5, 0.625)


# Redis away


def test_with_failure_open_a_worker_enforces_limits_and_updates_redis_later(pair, openai_server, redis):
    redis.kill()
    one, two, key = pair({**UPSTREAM, "state_failure": "open"}, usd_a_day=0.1)
    openai_server.enqueue(*(big_stream() for _ in range(3)))
    assert [chat(one, key, stream=True).status_code for _ in range(3)] == [200, 200, 429]
    redis.start()
    assert until(lambda: not one.app.worker.limiter.away and not two.app.worker.limiter.away)
    assert until(lambda: chat(one, key).status_code == 429)
    assert account(one).day.spent_usd == pytest.approx(2 * ANSWER_USD)
    response = chat(two, key, stream=True)
    assert response.status_code == 429 and "has spent $0.080100 of $0.1 a day" in response.text
    assert len(openai_server.received) == 2


def test_keys_without_limits_are_answered_without_redis(pair, start_router, openai_server, redis, tmp_path):
    redis.kill()
    home = tmp_path / "shared"
    free, admin = make(home, "bob"), make(home, "root", admin=True)
    one, _, key = pair(usd_a_day=1.0)
    assert until(lambda: one.app.worker.limiter.away)
    start = time.monotonic()
    assert chat(one, key).status_code == 503
    assert time.monotonic() - start < 1.0
    assert chat(one, free).status_code == 200 and len(openai_server.received) == 1
    assert until(lambda: "router_state_away 1.0" in ask(one, "/metrics", admin).text)


async def test_a_silent_redis_times_out_after_a_quarter_of_a_second(redis):
    async with connected(redis) as shared:
        ours = opened(usd_a_day=1.0)
        await shared.hold([ours], Most(0.5, 0, 0), time.time_ns())
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            with pytest.raises(LimitsError):
                await shared.hold([ours], Most(0.25, 0, 0), time.time_ns())
            assert time.monotonic() - start < 0.6
        finally:
            os.kill(redis.pid, signal.SIGCONT)
        while shared.link.problem:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await shared.link.drain(1)
        await shared.hold([ours], Most(0.5, 0, 0), time.time_ns())  # what was asked for in vain is not held


# settings


def test_the_address_of_redis_is_shown_without_its_login():
    settings = load(state="rediss://user:secret-password@redis.example.com:6380/1")
    assert "secret-password" not in repr(settings)
    assert Shared(settings.state.get_secret_value(), "closed", nothing_spent).link.address == (
        "rediss://[login]@redis.example.com:6380/1"
    )
    for wrong in ("http://user:secret-password@x", "redis://", "redis://h:0"):
        with pytest.raises(SettingsError, match="ROUTER_STATE") as error:
            load(state=wrong)
        assert "secret-password" not in str(error.value)


def test_doctor_checks_redis_and_shows_no_login(redis, closed_port):
    assert doctor_redis(redis.url, Network()).state == State.OK
    found = doctor_redis(f"redis://ada:secret@127.0.0.1:{closed_port}/0", Network())
    assert found.state == State.PROBLEM and "secret" not in str(found) and "ROUTER_STATE" in str(found)


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.2"])
def test_redis_over_tls_requires_a_certificate_for_its_address(tmp_path, start_router, openai_server, name):
    chain, authority = certificate(tmp_path, x509.IPAddress(ipaddress.ip_address(name)))
    server = RedisServer(tmp_path, chain)
    try:
        key = make(tmp_path / "home-0", "ada", limits=Limits(requests_a_minute=5))
        settings = {"openai_base_url": openai_server.url, "state": server.url, "ca_bundle": authority, **UPSTREAM}
        router = start_router(**settings)
        status, state = (200, State.OK) if name == "127.0.0.1" else (503, State.PROBLEM)
        assert until(lambda: chat(router, key).status_code == status)
        assert doctor_redis(server.url, load(ca_bundle=authority).network).state == state
        assert doctor_redis(server.url, Network()).state == State.PROBLEM  # the system trusts nobody who signed it
    finally:
        server.kill()


@pytest.mark.slow
def test_workers_of_one_router_share_the_limits_of_a_key(redis, openai_server, tmp_path):
    key = make(tmp_path / "w2", "ada", limits=Limits(requests_a_minute=5, usd_a_day=1.0))
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
