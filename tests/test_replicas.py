"""Two replicas are one router: one bill, one budget, one set of traces, one policy, and no request lost but open ones.

The tests share one deployment and build on one another: each ends with both replicas ready and all counts agreed.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import httpx2
import mlflow
import pytest
from replicas import ADA, EXACT, TEAM, Deployment, Load, Replica, RequestOutcome, deployment, wait_until

from calibration.registry import registration
from router.journal.segments import Cursor
from router.policy.distribution import SHIPPED
from router.policy.document import CHAMPION, REGISTERED_MODEL
from router.serving.policy import read_policy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not os.environ.get("TEST_REPLICAS"), reason="minutes of real servers: make test-replicas"),
]
CLIENTS = 16
STREAM = {"model": "gpt-4o", "max_tokens": 4096}
STREAM_USD = Decimal("0.0411")  # at most: 20 tokens and 4,096


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployment]:
    with deployment() as started:
        yield started


@pytest.fixture(scope="module")
def lost() -> set[str]:
    """Requests that were open in a replica when it was killed."""
    return set()


class Asking(threading.Thread):
    """Load in the background; `after` waits until so many requests are done."""

    def __init__(self, load: Load, requests: int) -> None:
        super().__init__(daemon=True)
        self._load, self._requests = load, requests
        self.start()

    def run(self) -> None:
        asyncio.run(self._load.run(self._requests, CLIENTS))

    def whole_after(self, moment: float) -> list[RequestOutcome]:
        """Those that began after a moment and were answered."""
        return [asked for asked in self._load.outcomes if asked.whole and asked.began > moment]

    def after(self, requests: int) -> None:
        wait_until(lambda: self._load.done >= requests, "the load does not get on")


def test_requests_of_both_replicas_are_billed_and_traced_once(deployed, lost):
    load = deployed.load()
    asyncio.run(load.run(200, CLIENTS))
    assert load.failed() == []
    by_port = [sum(asked.port == replica.port for asked in load.outcomes) for replica in deployed.replicas]
    assert sum(by_port) == 200 and min(by_port) > 50
    deployed.agree(lost)
    deployed.limits_agree(TEAM)
    assert len(deployed.rows()) == 200


def test_200_concurrent_streams_spend_no_more_than_the_dollar_left(deployed, lost):
    asyncio.run(deployed.load(ADA, all_streams=True, **STREAM).run(8, 8))
    deployed.agree(lost)
    deployed.limits_agree(TEAM, ADA)
    before = deployed.ledger()[ADA]
    deployed.limit(ADA, usd_a_month=float(before) + 1.0)
    time.sleep(2)  # until a replica has read its keys again
    load = deployed.load(ADA, all_streams=True, **STREAM)
    asyncio.run(load.run(200, 200))
    assert {asked.port for asked in load.outcomes} == {replica.port for replica in deployed.replicas}
    refused = load.failed()
    assert {(asked.status, asked.error, asked.retry) for asked in refused} == {(429, "insufficient_quota", "true")}
    assert 20 <= len(load.outcomes) - len(refused) <= 1 / STREAM_USD
    more = deployed.load(ADA, all_streams=True, **STREAM)
    while "false" not in {asked.retry for asked in more.failed()}:  # what is left, one by one
        assert len(more.outcomes) < 100
        asyncio.run(more.run(1, 1))
    deployed.agree(lost)
    deployed.limits_agree(TEAM, ADA)
    assert 1 - STREAM_USD < deployed.ledger()[ADA] - before <= 1


def test_redis_is_killed_and_restarted_under_load(deployed, lost):
    """One replica refuses keys with limits meanwhile, the other one goes on; afterwards nothing is missing."""
    closed, open_ = deployed.replicas
    load = deployed.load()
    asking = Asking(load, 400)
    asking.after(60)
    deployed.redis.kill()
    killed = time.monotonic()
    wait_until(lambda: len(asking.whole_after(killed + 1)) >= 20, "nothing is answered without Redis")
    deployed.redis.start()
    back = time.monotonic()
    asking.join(300)
    failed = load.failed()
    assert {(asked.port, asked.status, asked.error) for asked in failed} == {(closed.port, 503, "limits_unknown")}
    assert all(killed - 1 < asked.ended < back + 3 for asked in failed)
    meanwhile = [asked for asked in asking.whole_after(killed + 1) if asked.ended < back]
    assert {asked.port for asked in meanwhile} == {open_.port}
    assert max(asked.ended - asked.began for asked in failed) < 2
    wait_until(lambda: all(ready(replica) for replica in deployed.replicas), "they do not reach Redis again")
    after = deployed.load()
    asyncio.run(after.run(60, CLIENTS))
    assert after.failed() == [] and {asked.port for asked in after.outcomes} == {closed.port, open_.port}
    deployed.agree(lost)
    deployed.limits_agree(TEAM)


def test_both_replicas_apply_a_promoted_policy(deployed):
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"http://127.0.0.1:{deployed.mlflow.port}")
    try:
        experiment = mlflow.MlflowClient().create_experiment("policies")
        shipped = read_policy(SHIPPED)
        another = replace(shipped, about={**shipped.about, "seed": 7})
        number, kept = registration.register_policy(experiment, "another", another, [], "Route", 7)
        mlflow.MlflowClient().set_registered_model_alias(REGISTERED_MODEL, CHAMPION, number)
    finally:
        mlflow.set_tracking_uri(before)
    for replica in deployed.replicas:
        wait_until(lambda origin=replica.origin: served(origin) == kept.version, "it does not take the policy up")
    load = deployed.load()
    asyncio.run(load.run(32, CLIENTS))
    assert {asked.policy for asked in load.outcomes} == {kept.version}


def served(origin: str) -> str:
    return httpx2.get(origin + "/health").json()["policy"]


def test_a_response_is_continued_with_its_model_at_the_other_replica(deployed, lost):
    one, two = deployed.replicas
    key = deployed.keys[TEAM]
    for model in ("gpt-4o", "gpt-4o-mini"):
        began = respond(one, key, f"began-{model}", model=model).json()["id"]
        answer = respond(two, key, f"went-on-{model}", model="auto", previous_response_id=began)
        assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == (model, "continued")
    deployed.agree(lost)


def respond(replica: Replica, key: str, user: str, **fields: str) -> httpx2.Response:
    body = {"input": "What is 2 plus 2?", "user": user, **fields}
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.post(replica.origin + "/v1/responses", json=body, headers=headers, timeout=30).raise_for_status()


def test_no_request_fails_while_a_replica_restarts(deployed, lost):
    one, _ = deployed.replicas
    load = deployed.load()
    asking = Asking(load, 400)
    asking.after(60)
    one.process.terminate()
    said = []
    while one.process.poll() is None:
        said.append(one.status())
        time.sleep(0.05)
    assert one.process.returncode == 0
    assert 503 in said  # before nobody answers
    assert set(said[said.index(503) :]) <= {503, 0}
    one.start()
    one.until_ready()
    asking.join(300)
    assert load.failed() == []
    assert b"Traceback" not in one.log.read_bytes()
    deployed.agree(lost)


def test_a_killed_replica_loses_only_its_open_requests(deployed, lost):
    """A new replica on its volume exports what it had finished; what it held counts as spent, and is held no more."""
    one, two = deployed.replicas
    load = deployed.load()
    asking = Asking(load, 300)
    asking.after(100)
    one.kill(pod=True)
    left = behind(one)
    asking.after(200)
    assert behind(one) == left > 0
    one.start()
    asking.join(300)
    failed = load.failed()
    assert 0 < len(failed) <= CLIENTS
    assert {asked.port for asked in failed} == {one.port}
    one.until_ready()
    wait_until(lambda: behind(one) + behind(two) == 0, "what was left is not exported")
    recorded = set(deployed.rows())
    assert {asked.user for asked in load.outcomes if asked.whole} <= recorded
    lost |= {asked.user for asked in failed} - recorded
    deployed.agree(lost)
    held = deployed.holds(TEAM)
    assert 0 < len(held) <= CLIENTS and sum(held) == deployed.limits(TEAM)[1]
    deployed.age_holds(TEAM)
    asyncio.run(deployed.load().run(1, 1))
    deployed.limits_agree(TEAM, lapsed=sum(held))
    assert deployed.limits(TEAM)[0] > deployed.ledger()[TEAM] + EXACT


def test_an_mlflow_outage_and_a_lost_replica_lose_no_record(deployed, lost):
    one, two = deployed.replicas
    load = deployed.load()
    asking = Asking(load, 300)
    asking.after(30)
    deployed.mlflow.kill()
    asking.after(200)
    two.kill(pod=True)
    asking.join(300)
    assert {asked.port for asked in load.failed()} <= {two.port}
    assert behind(one) > 0 < behind(two)
    deployed.mlflow.start()
    wait_until(lambda: behind(one) == 0, "what was kept is not exported")
    left = behind(two)
    assert left > 0  # nobody else has it
    assert two.export() == 0, two.log.read_text()[-2000:]
    assert behind(two) == 0
    lost |= {asked.user for asked in load.failed()} - set(deployed.rows())
    two.start()
    two.until_ready()
    deployed.agree(lost)


def test_all_stores_agree_to_the_cent(deployed, lost):
    """A Redis without data has what the usage tables have: nothing of what died with a replica."""
    deployed.redis.kill()
    deployed.redis.start()
    wait_until(lambda: all(ready(replica) for replica in deployed.replicas), "they do not reach Redis")
    asyncio.run(deployed.load().run(60, CLIENTS))
    refused = deployed.load(ADA, **STREAM)
    asyncio.run(refused.run(1, 1))
    assert refused.outcomes[0].status == 429  # it is spent still
    deployed.agree(lost)
    deployed.limits_agree(TEAM, ADA)


def ready(replica: Replica) -> bool:
    """Whether it reaches Redis."""
    return not any("Redis" in warning for warning in httpx2.get(replica.origin + "/health").json()["warnings"])


def behind(replica: Replica) -> int:
    """Bytes of its journal that MLflow or the usage tables do not have."""
    return sum(Cursor(replica.home / "journal", reader).behind_bytes() for reader in ("usage", "mlflow"))
