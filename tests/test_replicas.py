"""Two replicas share one bill, budget, policy and set of traces, and lose only open requests.

The tests share one deployment and build on one another: each ends with both replicas ready and all counts agreed.
"""

import asyncio
import itertools
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
def lost_users() -> set[str]:
    """Users of requests that were open when a replica was killed."""
    return set()


class Asking(threading.Thread):
    """Load in the background: at least `requests` requests, and more until `join`, however fast they are answered."""

    def __init__(self, load: Load, requests: int) -> None:
        super().__init__(daemon=True)
        self._load, self._requests = load, requests
        self._may_end = False
        self.start()

    def run(self) -> None:
        asyncio.run(self._load.run(self._numbers(), CLIENTS))

    def join(self, timeout: float | None = None) -> None:
        self._may_end = True
        super().join(timeout)

    def _numbers(self) -> Iterator[int]:
        return itertools.takewhile(lambda number: number < self._requests or not self._may_end, itertools.count())

    def whole_after(self, moment: float) -> list[RequestOutcome]:
        """The outcomes of answered requests that began after a moment."""
        return [outcome for outcome in self._load.outcomes if outcome.whole and outcome.began > moment]

    def after(self, requests: int) -> None:
        wait_until(lambda: self._load.done >= requests, "the load does not get on")


def test_requests_of_both_replicas_are_billed_and_traced_once(deployed, lost_users):
    load = deployed.load()
    asyncio.run(load.run(200, CLIENTS))
    assert load.failed() == []
    by_port = [sum(outcome.port == replica.port for outcome in load.outcomes) for replica in deployed.replicas]
    assert sum(by_port) == 200 and min(by_port) > 50
    deployed.agree(lost_users)
    deployed.limits_agree(TEAM)
    assert len(deployed.rows()) == 200


def test_200_concurrent_streams_spend_no_more_than_the_dollar_left(deployed, lost_users):
    asyncio.run(deployed.load(ADA, all_streams=True, **STREAM).run(8, 8))
    deployed.agree(lost_users)
    deployed.limits_agree(TEAM, ADA)
    before = deployed.ledger()[ADA]
    deployed.limit(ADA, usd_a_month=float(before) + 1.0)
    time.sleep(2)  # until a replica has read its keys again
    load = deployed.load(ADA, all_streams=True, **STREAM)
    asyncio.run(load.run(200, 200))
    assert {outcome.port for outcome in load.outcomes} == {replica.port for replica in deployed.replicas}
    refused = load.failed()
    assert {(outcome.status, outcome.error, outcome.retry) for outcome in refused} == {
        (429, "insufficient_quota", "true")
    }
    assert 20 <= len(load.outcomes) - len(refused) <= 1 / STREAM_USD
    second_load = deployed.load(ADA, all_streams=True, **STREAM)
    while "false" not in {outcome.retry for outcome in second_load.failed()}:  # spend the rest one by one
        assert len(second_load.outcomes) < 100
        asyncio.run(second_load.run(1, 1))
    deployed.agree(lost_users)
    deployed.limits_agree(TEAM, ADA)
    assert 1 - STREAM_USD < deployed.ledger()[ADA] - before <= 1


def test_redis_is_killed_and_restarted_under_load(deployed, lost_users):
    """Without Redis one replica rejects keys with limits and the other accepts them; afterwards nothing is missing."""
    closed, open_ = deployed.replicas
    load = deployed.load()
    asking = Asking(load, 400)
    asking.after(60)
    deployed.redis.kill()
    killed = time.monotonic()
    wait_until(lambda: len(asking.whole_after(killed + 1)) >= 20, "nothing is answered without Redis")
    deployed.redis.start()
    restarted_at = time.monotonic()
    asking.join(300)
    failed = load.failed()
    assert {(outcome.port, outcome.status, outcome.error) for outcome in failed} == {
        (closed.port, 503, "limits_unknown")
    }
    assert all(killed - 1 < outcome.ended < restarted_at + 3 for outcome in failed)
    meanwhile = [outcome for outcome in asking.whole_after(killed + 1) if outcome.ended < restarted_at]
    assert {outcome.port for outcome in meanwhile} == {open_.port}
    assert max(outcome.ended - outcome.began for outcome in failed) < 2
    wait_until(lambda: all(ready(replica) for replica in deployed.replicas), "they do not reach Redis again")
    after = deployed.load()
    asyncio.run(after.run(60, CLIENTS))
    assert after.failed() == [] and {outcome.port for outcome in after.outcomes} == {closed.port, open_.port}
    deployed.agree(lost_users)
    deployed.limits_agree(TEAM)


def test_both_replicas_apply_a_promoted_policy(deployed):
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"http://127.0.0.1:{deployed.mlflow.port}")
    try:
        experiment = mlflow.MlflowClient().create_experiment("policies")
        shipped = read_policy(SHIPPED)
        new_policy = replace(shipped, about={**shipped.about, "seed": 7})
        number, registered = registration.register_policy(experiment, "another", new_policy, [], "Route", 7)
        mlflow.MlflowClient().set_registered_model_alias(REGISTERED_MODEL, CHAMPION, number)
    finally:
        mlflow.set_tracking_uri(before)
    for replica in deployed.replicas:
        wait_until(
            lambda origin=replica.origin: served_policy_version(origin) == registered.version,
            "it does not take the policy up",
        )
    load = deployed.load()
    asyncio.run(load.run(32, CLIENTS))
    assert {outcome.policy for outcome in load.outcomes} == {registered.version}


def served_policy_version(origin: str) -> str:
    return httpx2.get(origin + "/health").json()["policy"]


def test_a_response_is_continued_with_its_model_at_the_other_replica(deployed, lost_users):
    first_replica, second_replica = deployed.replicas
    key = deployed.keys[TEAM]
    for model in ("gpt-4o", "gpt-4o-mini"):
        response_id = respond(first_replica, key, f"began-{model}", model=model).json()["id"]
        answer = respond(second_replica, key, f"went-on-{model}", model="auto", previous_response_id=response_id)
        assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == (model, "continued")
    deployed.agree(lost_users)


def respond(replica: Replica, key: str, user: str, **fields: str) -> httpx2.Response:
    body = {"input": "What is 2 plus 2?", "user": user, **fields}
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.post(replica.origin + "/v1/responses", json=body, headers=headers, timeout=30).raise_for_status()


def test_no_request_fails_while_a_replica_restarts(deployed, lost_users):
    first_replica, _ = deployed.replicas
    load = deployed.load()
    asking = Asking(load, 400)
    asking.after(60)
    first_replica.process.terminate()
    statuses = []
    while first_replica.process.poll() is None:
        statuses.append(first_replica.status())
        time.sleep(0.05)
    assert first_replica.process.returncode == 0
    assert 503 in statuses  # before nobody answers
    assert set(statuses[statuses.index(503) :]) <= {503, 0}
    first_replica.start()
    first_replica.until_ready()
    asking.join(300)
    assert load.failed() == []
    assert b"Traceback" not in first_replica.log.read_bytes()
    deployed.agree(lost_users)


def test_a_killed_replica_loses_only_its_open_requests(deployed, lost_users):
    """A new replica on its volume exports its finished requests; its holds count as spent."""
    first_replica, second_replica = deployed.replicas
    load = deployed.load()
    asking = Asking(load, 300)
    asking.after(80)
    first_replica.stop_exporting()
    asking.after(100)
    first_replica.kill(pod=True)
    unexported = unexported_records(first_replica)
    asking.after(200)
    assert unexported_records(first_replica) == unexported > 0
    first_replica.start()
    asking.join(300)
    failed = load.failed()
    assert 0 < len(failed) <= CLIENTS
    assert {outcome.port for outcome in failed} == {first_replica.port}
    first_replica.until_ready()
    wait_until(
        lambda: unexported_records(first_replica) + unexported_records(second_replica) == 0,
        "what was left is not exported",
    )
    recorded = set(deployed.rows())
    assert {outcome.user for outcome in load.outcomes if outcome.whole} <= recorded
    lost_users |= {outcome.user for outcome in failed} - recorded
    deployed.agree(lost_users)
    holds = deployed.holds(TEAM)
    assert 0 < len(holds) <= CLIENTS and sum(holds) == deployed.limits(TEAM)[1]
    deployed.age_holds(TEAM)
    asyncio.run(deployed.load().run(1, 1))
    deployed.agree(lost_users)
    deployed.limits_agree(TEAM, lapsed=sum(holds))
    assert deployed.limits(TEAM)[0] > deployed.ledger()[TEAM] + EXACT


def test_an_mlflow_outage_and_a_lost_replica_lose_no_record(deployed, lost_users):
    first_replica, second_replica = deployed.replicas
    load = deployed.load()
    asking = Asking(load, 300)
    asking.after(30)
    deployed.mlflow.kill()
    asking.after(200)
    second_replica.kill(pod=True)
    asking.join(300)
    assert {outcome.port for outcome in load.failed()} <= {second_replica.port}
    assert unexported_records(first_replica) > 0 < unexported_records(second_replica)
    deployed.mlflow.start()
    wait_until(lambda: unexported_records(first_replica) == 0, "what was kept is not exported")
    unexported = unexported_records(second_replica)
    assert unexported > 0  # no other key has this limit
    assert second_replica.export() == 0, second_replica.log.read_text()[-2000:]
    assert unexported_records(second_replica) == 0
    lost_users |= {outcome.user for outcome in load.failed()} - set(deployed.rows())
    second_replica.start()
    second_replica.until_ready()
    deployed.agree(lost_users)


def test_all_stores_agree_to_the_cent(deployed, lost_users):
    """A Redis without data reads the usage tables, without the holds of a killed replica."""
    deployed.redis.kill()
    deployed.redis.start()
    wait_until(lambda: all(ready(replica) for replica in deployed.replicas), "they do not reach Redis")
    asyncio.run(deployed.load().run(60, CLIENTS))
    refused = deployed.load(ADA, **STREAM)
    asyncio.run(refused.run(1, 1))
    assert refused.outcomes[0].status == 429  # it still counts as spent
    deployed.agree(lost_users)
    deployed.limits_agree(TEAM, ADA)


def ready(replica: Replica) -> bool:
    """Whether the replica reaches Redis."""
    return not any("Redis" in warning for warning in httpx2.get(replica.origin + "/health").json()["warnings"])


def unexported_records(replica: Replica) -> int:
    """The bytes of its journal that are not yet exported to MLflow or the usage tables."""
    return sum(Cursor(replica.home / "journal", reader).behind_bytes() for reader in ("usage", "mlflow"))
