"""Two replicas are one router: one bill, one set of traces, one policy, and no request lost that one of them had not.

The tests share one deployment and build on one another: each ends with both replicas ready and all counts agreed.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx2
import mlflow
import pytest
from replicas import Deployment, Load, Replica, deployment, until

from calibration.registry import registration
from router.journal.segments import Cursor
from router.policy.distribution import SHIPPED
from router.policy.document import CHAMPION, REGISTERED_MODEL
from router.serving.policy import read_policy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not os.environ.get("TEST_REPLICAS"), reason="a minute of real servers: make test-replicas"),
]
CLIENTS = 16


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

    def after(self, requests: int) -> None:
        until(lambda: self._load.done >= requests, "the load does not get on")


def test_requests_of_both_are_in_one_bill_and_in_mlflow_once(deployed, lost):
    load = deployed.load()
    asyncio.run(load.run(200, CLIENTS))
    assert load.failed() == []
    by_port = [sum(asked.port == replica.port for asked in load.asked) for replica in deployed.replicas]
    assert sum(by_port) == 200 and min(by_port) > 50
    deployed.agree(lost)
    assert len(deployed.rows()) == 200


def test_a_promoted_policy_reaches_both(deployed):
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
        until(lambda origin=replica.origin: served(origin) == kept.version, "it does not take the policy up")
    load = deployed.load()
    asyncio.run(load.run(32, CLIENTS))
    assert {asked.policy for asked in load.asked} == {kept.version}


def served(origin: str) -> str:
    return httpx2.get(origin + "/health").json()["policy"]


def test_a_response_goes_on_with_its_model_at_the_other_replica(deployed, lost):
    one, two = deployed.replicas
    for model in ("gpt-4o", "gpt-4o-mini"):
        began = respond(one, f"began-{model}", model=model).json()["id"]
        answer = respond(two, f"went-on-{model}", model="auto", previous_response_id=began)
        assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == (model, "continued")
    deployed.agree(lost)


def respond(replica: Replica, user: str, **fields: str) -> httpx2.Response:
    body = {"input": "What is 2 plus 2?", "user": user, **fields}
    return httpx2.post(replica.origin + "/v1/responses", json=body, timeout=30).raise_for_status()


def test_no_request_fails_while_one_is_stopped_and_started_again(deployed, lost):
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
    asking.join(120)
    assert load.failed() == []
    assert b"Traceback" not in one.log.read_bytes()
    deployed.agree(lost)


def test_a_replica_that_is_killed_costs_its_own_open_requests_and_nothing_else(deployed, lost):
    one, two = deployed.replicas
    load = deployed.load()
    asking = Asking(load, 300)
    asking.after(100)
    one.kill()
    asking.after(200)
    one.start()
    asking.join(120)
    failed = load.failed()
    assert 0 < len(failed) <= CLIENTS
    assert {asked.port for asked in failed} == {one.port}
    one.until_ready()
    until(lambda: behind(one) + behind(two) == 0, "what was left is not exported")
    recorded = set(deployed.rows())
    assert {asked.user for asked in load.asked if asked.whole} <= recorded
    lost |= {asked.user for asked in failed} - recorded
    deployed.agree(lost)


def test_nothing_is_lost_while_mlflow_is_away_and_a_lost_replica_is_adopted(deployed, lost):
    one, two = deployed.replicas
    load = deployed.load()
    asking = Asking(load, 300)
    asking.after(30)
    deployed.way_to_mlflow.mode, began = "refuse", time.monotonic()
    asking.after(200)
    two.kill(pod=True)
    asking.join(120)
    assert {asked.port for asked in load.failed()} <= {two.port}
    assert behind(one) > 0 < behind(two)
    time.sleep(max(began + 10 - time.monotonic(), 0))
    deployed.way_to_mlflow.mode = "pass"
    until(lambda: behind(one) == 0, "what was kept is not exported")
    left = behind(two)
    assert left > 0  # nobody else has it
    assert two.export() == 0, two.log.read_text()[-2000:]
    assert behind(two) == 0
    lost |= {asked.user for asked in load.failed()} - set(deployed.rows())
    two.start()
    two.until_ready()
    deployed.agree(lost)


def behind(replica: Replica) -> int:
    """Bytes of its journal that MLflow or the usage tables do not have."""
    return sum(Cursor(replica.home / "journal", reader).behind_bytes() for reader in ("usage", "mlflow"))
