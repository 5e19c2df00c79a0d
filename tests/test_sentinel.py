"""The sentinel's statistics, and how a router applies its report."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx2
import numpy as np
import pytest
from browser import Browser
from browser import find_browser as browser_found

from calibration.sentinel import betting
from calibration.sentinel.kept_quality import (
    Contributions,
    Observation,
    estimate_kept_quality,
    log_evidence_threshold,
    truncate_at_drift,
)
from calibration.sentinel.sample import parse_trace, sampling_number
from calibration.sentinel.signals import compute_signals
from router.notices import notices
from router.policy.decision import decide
from router.policy.distribution import SHIPPED
from router.policy.features import read_question
from router.policy.mix import quality_kept_by_mix
from router.policy.prediction import predict
from router.policy.reasons import Reason
from router.policy.sentinel import Checkpoint, Sentinel, SentinelError, Signal, TypeStatus, apply_drift, dump, parse
from router.serving.policy import read_policy

SUM = "Tom has 3 apples and buys 5 more. How many apples does Tom have now?"
KIND = "math/grade-school"


@pytest.fixture(scope="module")
def policy():
    return read_policy(SHIPPED)


def draw_pairs(rng, n, cheap, strong, by_cheap=1.0):
    return [
        Observation(bool(rng.random() < by_cheap), float(rng.random() < cheap), float(rng.random() < strong))
        for _ in range(n)
    ]


def test_a_true_claim_is_rarely_refuted_at_any_number_of_checks():
    rng = np.random.default_rng(0)
    least, refuted = log_evidence_threshold(1, 0.1), 0
    for _ in range(300):
        ratios = rng.choice([0.0, 2.5], p=[0.6, 0.4], size=600)  # whose mean is exactly 1
        refuted += betting.first_crossing(ratios, least) is not None
    assert refuted <= 30


def test_the_first_time_that_wealth_is_reached_does_not_depend_on_later_checks():
    rng = np.random.default_rng(1)
    ratios = rng.choice([0.0, 3.0], p=[0.6, 0.4], size=900)
    least = log_evidence_threshold(5)
    first = betting.first_crossing(ratios, least)
    assert first is not None
    assert next(n for n in range(1, 901) if betting.max_log_evidence(ratios[:n])[0] >= least) == first


def test_the_median_detection_delay_matches_the_theory():
    rng, least, floor = np.random.default_rng(2), log_evidence_threshold(40), 0.94
    change, delays = 300, []
    after = np.array([1 - strong_mean + floor * s for strong_mean in (0.0, 1.0) for s in (0.0, 1.0)])
    weights = np.array([number * q for number in (0.16, 0.84) for q in (0.04, 0.96)])
    rate = betting.growth_rate(after, weights)
    theory = (
        least - betting.log_error_share(change) + math.log(len(betting.FRACTIONS))
    ) / rate + betting.CHANGE_POINT_INTERVAL
    for _ in range(15):
        observed = [*draw_pairs(rng, change, 0.94, 0.96), *draw_pairs(rng, 3000, 0.84, 0.96)]
        reached = betting.first_crossing(Contributions.from_observations(observed).ratios_of_at_least(floor), least)
        delays.append(math.inf if reached is None else reached - change)
    assert 0 < np.median(delays) <= theory


def test_the_interval_covers_the_truth_and_lies_below_the_floor_after_a_drift():
    rng, least = np.random.default_rng(3), log_evidence_threshold(1)
    for _ in range(20):
        estimate = estimate_kept_quality(draw_pairs(rng, 400, 0.9, 0.95), 0.94, least)
        assert estimate.band.low <= 0.9 / 0.95 <= estimate.band.high
    current_pairs, drifted = truncate_at_drift(draw_pairs(rng, 2000, 0.6, 0.95), 0.94, least)
    delays = estimate_kept_quality(current_pairs, 0.94, least)
    assert drifted and len(current_pairs) < 300 and delays.band.high <= 0.94 and delays.log_evidence >= least


def test_answers_of_the_strong_model_count_as_kept_and_do_not_revoke_a_drift():
    rng, least = np.random.default_rng(4), log_evidence_threshold(40)
    pairs = draw_pairs(rng, 600, 0.75, 0.95)
    cheap_only = estimate_kept_quality(pairs, 0.94, least).band.estimate
    mixed = [observation for pair in pairs for observation in (pair, Observation(by_cheap=False))]
    assert estimate_kept_quality(mixed, 0.94, least).band.estimate == pytest.approx((1 + cheap_only) / 2, abs=0.01)
    shown_pairs, drifted = truncate_at_drift(pairs, 0.94, least)
    assert drifted
    again = truncate_at_drift([*pairs, *[Observation(by_cheap=False)] * 3000], 0.94, least)
    assert again == (shown_pairs, True)


def test_a_better_type_has_its_whole_interval_above_the_promised_quality():
    delays = estimate_kept_quality(
        draw_pairs(np.random.default_rng(5), 3000, 0.95, 0.85), 0.94, log_evidence_threshold(40)
    )
    assert delays.band.low > 0.97


def test_sampling_depends_on_the_trace_id_alone():
    numbers = [sampling_number(f"tr-{n:032x}") for n in range(4000)]
    assert abs(sum(number < 0.25 for number in numbers) / 4000 - 0.25) < 0.03


def rows(policy, n, kinds=None, **fields):
    calibrated = {name: evidence.n for name, evidence in policy.rules.evidence.items() if evidence.kind == "measured"}
    rng, names = np.random.default_rng(7), list(calibrated)
    shares = np.array([calibrated[name] for name in names]) / sum(calibrated.values())
    for kind in kinds or rng.choice(names, size=n, p=shares):
        usual = policy.rules.evidence[kind].output_tokens["gpt-4o-mini"]
        row = {"failed": False, "refused": False, "output_tokens": usual * rng.uniform(0.7, 1.3)}
        novelty = float(rng.random())
        yield {"question_type": kind, "model": "gpt-4o-mini", "novelty": novelty, **row, **fields}


def signal_names(policy, requests):
    return {signal.name for signal in compute_signals(list(requests), policy.rules) if signal.evidence >= 1}


def test_traffic_like_the_calibrations_gives_no_signal(policy):
    assert signal_names(policy, rows(policy, 800)) == set()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"failed": True}, "errors"),
        ({"refused": True}, "refusals"),
        ({"novelty": 1.0}, "novelty"),
        ({"kinds": [KIND] * 200}, "mix"),
        ({"kinds": [KIND] * 200, "output_tokens": 5000}, f"longer {KIND} gpt-4o-mini"),
        ({"kinds": [KIND] * 200, "output_tokens": 3}, f"shorter {KIND} gpt-4o-mini"),
    ],
)
def test_changes_give_signals_without_a_judge(policy, changes, name):
    assert name in signal_names(policy, rows(policy, 200, **changes))


def test_sampled_requests_include_refusals_and_exclude_other_content():
    span = SimpleNamespace(
        inputs={"messages": [{"role": "user", "content": SUM}]},
        outputs={"choices": [{"message": {"content": None, "refusal": "I will not."}, "finish_reason": "stop"}]},
        attributes={"router.target": 0.97, "router.novelty": "0.25"},
        start_time_ns=10**9,
        end_time_ns=2 * 10**9,
    )
    tags = {"router.question_type": KIND, "router.model": "cheap"}
    info = SimpleNamespace(trace_id="tr-1", tags=tags, token_usage=None)
    trace = SimpleNamespace(info=info, data=SimpleNamespace(spans=[span]))
    delays = parse_trace(trace)
    assert (delays.text, delays.refused, delays.target, delays.novelty) == ("I will not.", True, 0.97, 0.25)
    span.outputs = {"choices": [{"message": {"content": "", "tool_calls": [{}]}}]}
    assert parse_trace(trace).question is None  # a tool call has no text
    span.outputs = {"choices": [{"message": {"content": ""}}]}
    assert parse_trace(trace).text == "(no answer)"
    span.inputs = {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}
    assert parse_trace(trace).question is None


def found_of(version: str, kind: str = KIND, **fields: object) -> Sentinel:
    history = [Checkpoint(10 * n, 0.95 - 0.5 / n, 0.95 - 0.01 * n, 1.0 + 0.2 / n, n / 20) for n in range(1, 21)]
    status = TypeStatus(
        **{
            **{"state": "drifted", "requests": 250, "pairs": 200, "kept": (0.7, 0.75, 0.9), "floor": 0.94},
            **{"trusted": 0.97, "evidence": 1.02, "history": history},
            **fields,
        }
    )  # type: ignore[arg-type]
    return Sentinel(policy=version, target=0.97, made_unix=time.time(), types={kind: status})


def test_only_drifted_types_go_to_the_strong_model(policy):
    now = apply_drift(policy, found_of(policy.version))
    features = read_question([{"role": "user", "content": SUM}])
    before, after = (
        decide(some_policy.rules, features, predict(some_policy.predictor, features), 0.97)
        for some_policy in (policy, now)
    )
    assert (before.reason, after.reason, after.model) == (Reason.CHEAP_IS_ENOUGH, Reason.DRIFTED, "gpt-4o")
    assert now.version == policy.version
    other = apply_drift(policy, found_of(policy.version, "medical/pubmed-abstract"))
    assert decide(other.rules, features, predict(policy.predictor, features), 0.97).reason is Reason.CHEAP_IS_ENOUGH
    kept_quality = quality_kept_by_mix(now.rules, 0.97, {KIND: 5})
    assert kept_quality is not None and kept_quality.low == 1.0
    for report in (None, found_of("another"), found_of(policy.version, state="better")):
        assert apply_drift(policy, report) is policy
        assert apply_drift(now, report).rules.drifted == frozenset()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"format": 2, "policy": "v", "target": 0.9, "made_unix": 1}', b"\xff"]
)
def test_an_invalid_report_is_refused(content):
    with pytest.raises(SentinelError):
        parse(content)


def test_a_report_round_trips_through_its_file():
    delays = found_of("v")
    assert parse(dump(delays)) == delays


def follow(router, content: bytes) -> None:
    path = router.home / "sentinel.json"
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)
    time.sleep(0.01)
    router.app.worker.sentinel_watch.check()


def reason(router) -> str:
    body = {"model": "auto", "messages": [{"role": "user", "content": SUM}]}
    return httpx2.post(router.url + "/chat/completions", json=body).headers["x-router-reason"]


def test_a_router_applies_new_reports_and_clears_them_for_another_policy(router, policy, caplog):
    assert reason(router) == "cheap_is_enough"
    alerts = router.app.worker.alerts
    with caplog.at_level(logging.WARNING, "router"):
        follow(router, dump(found_of(policy.version)))
        follow(router, dump(found_of(policy.version)))
        alerts.close()
    assert reason(router) == "drifted"
    message = f"{KIND} drifted and goes to gpt-4o until it is recalibrated: it keeps 75.0% "
    message += "of the strong model's quality (70.0% to 90.0%, 200 judged pairs), below its floor of 94.0%"
    assert len([record.message for record in caplog.records if message in record.message]) == 1
    (raised,) = alerts.recent()
    assert (raised.alert.kind, raised.alert.subject, raised.alert.fields["judged_pairs"]) == ("drifted", KIND, 200)
    assert any(message in text for text in httpx2.get(router.origin + "/health").json()["warnings"])
    follow(router, b"broken")
    assert reason(router) == "drifted"  # the last report stays
    assert any("sentinel.json: does not parse" in text for text in notices(router.app.worker))
    served = router.app.worker.serving
    served.policy = replace(policy, rules=replace(policy.rules, version="promoted"))
    router.app.worker.sentinel_watch.check()
    assert reason(router) == "cheap_is_enough" and router.app.worker.sentinel_watch.report is None
    follow(router, dump(found_of("promoted", state="better")))
    assert reason(router) == "cheap_is_enough"
    assert any("keep more quality than the calibration promised" in text for text in notices(router.app.worker))


def test_a_starting_router_applies_the_report(start_router, openai_server, policy, tmp_path):
    (tmp_path / "home-0").mkdir()
    (tmp_path / "home-0" / "sentinel.json").write_bytes(dump(found_of(policy.version)))
    assert reason(start_router(openai_base_url=openai_server.url, openai_api_key="sk-upstream")) == "drifted"


@pytest.mark.skipif(browser_found() is None, reason="no Chromium is installed here")
def test_the_page_shows_the_interval_of_each_type(router, policy, tmp_path):
    requests = found_of(policy.version)
    fine = found_of(policy.version, state="ok", evidence=0.1, kept=(0.93, 0.98, 1.04)).types[KIND]
    signal = Signal("novelty", 300, 0.4, 0.1, 1.2)
    requests = Sentinel(
        policy=requests.policy,
        target=0.97,
        made_unix=requests.made_unix,
        types={**requests.types, "code/execution-tracing": fine},
        signals=[signal],
    )
    browser = Browser()
    try:
        browser.look(1280, 900)
        browser.open(router.origin + "/")
        assert browser.wait("document.querySelector('#state-text').textContent === 'Live'")
        assert browser.evaluate("document.querySelector('#watched-section').hidden")
        follow(router, dump(requests))
        browser.wait("document.querySelectorAll('#watched svg.evolution').length === 2", 20)
        first = browser.text("#watched li")
        assert KIND in first and "drifted" in first and "75.0" in first and "200 pairs" in first
        assert "novelty 0.4 (limit 0.1)" in browser.text("#signals")
        assert browser.evaluate("document.querySelectorAll('#watched .band, #watched .line.against').length") == 4
        browser.look(390, 800, dark=True)
        browser.save_screenshot(tmp_path / "narrow.png")
        assert browser.evaluate("document.documentElement.scrollWidth <= 390")
        browser.look(1280, 900)
        browser.save_screenshot(tmp_path / "page.png")
        assert browser.errors == []
        assert Path(tmp_path / "page.png").stat().st_size
    finally:
        browser.close()
