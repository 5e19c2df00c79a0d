"""Price changes under a policy: the report, and a policy certified again from the same outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from rich.console import Console
from running import RunningRouter
from synthetic_outcomes import synthetic_outcomes

from calibration.answers import tracking
from calibration.commands import reprice as reprice_command
from calibration.learning.learning import learn
from calibration.policies import load_prices, models_named, write_policy
from calibration.registry import registration
from calibration.registry.repricing import reprice
from router.notices import notices
from router.policy.document import CHAMPION, Policy
from router.policy.prices import Price, PriceBook
from router.policy.repricing import price_changes, saving_at_current_prices

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and its dependencies emit warnings

PAIR = ("gpt-4o-mini", "gpt-4o")
DEARER = {"gpt-4o-mini": {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 4.0}}


def book(**prices: Price) -> PriceBook:
    return load_prices().merged_with(PriceBook(prices, {}))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return learn(synthetic_outcomes(400), models_named(PAIR, load_prices()), 3, {}).policy


def test_unchanged_prices_are_not_reported(policy: Policy) -> None:
    assert price_changes(policy.rules.models, load_prices()) == []
    same = saving_at_current_prices(policy.rules, load_prices(), 0.9)
    rule = policy.rules.rule_for(0.9)
    assert rule is not None and same == pytest.approx((rule.expected_saving.estimate,) * 2)


def test_the_new_saving_lies_between_that_of_input_and_of_output(policy: Policy) -> None:
    changed = book(**{"gpt-4o-mini": Price(0.30, 2.40)})  # twice the input, four times the output
    rule = policy.rules.rule_for(0.9)
    least, largest = saving_at_current_prices(policy.rules, changed, 0.9) or (0.0, 0.0)
    assert rule is not None and least < largest < rule.expected_saving.estimate
    before = rule.expected_saving.estimate
    assert (least, largest) == pytest.approx((before / 0.94 * 0.76, before / 0.94 * 0.88))


def test_the_router_reports_changed_prices(policy: Policy, tmp_path: Path) -> None:
    write_policy(policy, tmp_path / "policy")
    prices = {"gpt-4o": {"usd_per_million_input_tokens": 2.0, "usd_per_million_output_tokens": 8.0}}
    router = RunningRouter(tmp_path, policy=tmp_path / "policy", models=prices, openai_base_url="simulated:")
    warnings = [line for line in notices(router.app.worker) if "prices have changed since" in line]
    router.close()
    assert (
        len(warnings) == 1
        and "gpt-4o 2.5/10 -> 2/8 (input/output)" in warnings[0]
        and "calibration reprice" in warnings[0]
    )


def test_repricing_certifies_a_policy_again_without_learning(policy: Policy, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    experiment = tracking.prepare(uri)
    number, registered = registration.register_policy(experiment, "first", policy, synthetic_outcomes(400), "a test", 3)
    loaded = registration.load_version(number)
    assert reprice(loaded, load_prices()) is None
    repriced = reprice(loaded, book(**{"gpt-4o-mini": Price(1.0, 4.0)}))
    assert repriced is not None
    assert [change.model for change in repriced.price_changes] == ["gpt-4o-mini"]
    assert np.array_equal(repriced.policy.predictor.table, registered.predictor.table)
    assert repriced.policy.rules.evidence == registered.rules.evidence
    assert repriced.policy.about["repriced_from"] == registered.version
    rule_at_target = {change.target: change for change in repriced.targets}[0.9]
    assert (
        rule_at_target.saved_unchanged < rule_at_target.saved_then
    )  # the cheap model saves less now, so the thresholds must change
    assert 0.0 <= rule_at_target.saved <= 1 - 1.0 / 2.5


def test_reprice_writes_a_challenger_and_a_dry_run_writes_nothing(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create_store: Callable[[Path], str]
) -> None:
    import mlflow

    monkeypatch.setattr(reprice_command, "console", Console(width=140))

    uri = create_store(tmp_path)
    experiment = tracking.prepare(uri)
    number, _ = registration.register_policy(experiment, "first", policy, synthetic_outcomes(400), "a test", 3)
    mlflow.MlflowClient().set_registered_model_alias("router", CHAMPION, number)
    (tmp_path / "new.json").write_text(json.dumps({"as_of": "2027-01-01", "models": DEARER}))

    def reprice_in(*arguments: str) -> str:
        settings = {"ROUTER_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": uri}
        result = run("calibration", "reprice", *arguments, **settings)
        assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
        return result.stdout

    assert "gpt-4o-mini 0.15/0.6 -> 1/4" in reprice_in("--prices", str(tmp_path / "new.json"), "--dry-run")
    assert registration.version_number(registration.CHALLENGER) == number
    output = reprice_in("--prices", str(tmp_path / "new.json"))
    assert "new thresholds" in output and registration.version_number(registration.CHALLENGER) == str(int(number) + 1)
    assert registration.version_number(CHAMPION) == number
