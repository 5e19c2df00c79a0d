"""Prometheus metrics are correct, bounded, and the same at every worker."""

import json
import shutil
import time
from pathlib import Path

import httpx2
import pytest
from fake_openai import Reply, chat_events, completion, json_reply, stream_reply
from prometheus_client.parser import text_string_to_metric_families
from synthetic_records import make_record
from waiting import until

from router.endpoints.totals import read_counts, total
from router.metrics import MAX_SERIES, Meter

SUM = [{"role": "user", "content": "Tom has 3 apples and buys 5 more. How many apples does Tom have now?"}]


def scraped(origin: str, **headers: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of a scrape by name and labels, read by Prometheus' own parser."""
    text = httpx2.get(origin + "/metrics", headers=headers).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def summed(samples: dict, name: str, **labels: str) -> float:
    """The sum of the samples with this name and these labels."""
    return sum(
        value
        for (sample, sample_labels), value in samples.items()
        if sample == name and labels.items() <= dict(sample_labels).items()
    )


def ask(router, model: str = "auto", **fields: object) -> httpx2.Response:
    body = {"model": model, "messages": SUM, **fields}
    return httpx2.post(router.url + "/chat/completions", json=body, timeout=30)


def test_a_request_is_counted_with_tokens_dollars_and_decision(router):
    answer = ask(router)
    model = answer.headers["x-router-model"]
    samples = scraped(router.origin)
    assert summed(samples, "router_requests_total", model=model, status="200", outcome="answered") == 1
    decision_labels = {"model": model, "reason": answer.headers["x-router-reason"]}
    assert (
        summed(samples, "router_decisions_total", **decision_labels, question_type=answer.headers["x-router-type"]) == 1
    )
    token_sums = [
        summed(samples, "router_tokens_total", token_type=kind) for kind in ("input", "cached_input", "output")
    ]
    assert token_sums == [12, 4, 3]
    assert summed(samples, "router_cost_usd_total") == pytest.approx(router.records()[0]["cost_usd"])
    assert summed(samples, "router_policy_info", version=answer.headers["x-router-policy"]) == 1
    assert summed(samples, "router_policy_age_seconds") > 0


def test_requests_are_in_flight_until_their_last_byte(router, openai_server):
    openai_server.enqueue(stream_reply(*chat_events("gpt-4o")[:2], end="stall"))

    def in_flight() -> float:
        return summed(scraped(router.origin), "router_requests_in_flight")

    assert in_flight() == 0
    body = {"model": "gpt-4o", "messages": SUM, "stream": True}
    with httpx2.stream("POST", router.url + "/chat/completions", json=body, timeout=30):
        assert in_flight() == 1
    assert until(lambda: in_flight() == 0)


def test_names_follow_the_conventions_for_generative_ai(router, openai_server):
    openai_server.enqueue(stream_reply(*chat_events("gpt-4o-mini", usage=True)))
    ask(router, stream=True)
    samples = scraped(router.origin)
    flow = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai"}
    assert summed(samples, "gen_ai_client_operation_duration_seconds_count", **flow, error_type="") == 1
    assert summed(samples, "gen_ai_client_operation_time_to_first_chunk_seconds_count", **flow) == 1
    assert summed(samples, "gen_ai_client_token_usage_sum", **flow, gen_ai_token_type="input") == 12
    assert summed(samples, "gen_ai_client_token_usage_bucket", gen_ai_token_type="output", le="1") == 0
    assert summed(samples, "gen_ai_client_token_usage_bucket", gen_ai_token_type="output", le="4") == 1


def test_added_seconds_exclude_the_upstream(router, openai_server):
    openai_server.enqueue(Reply(wait=0.5, pieces=[json.dumps(completion("gpt-4o-mini")).encode()]))
    ask(router)
    samples = scraped(router.origin)
    assert summed(samples, "router_added_latency_seconds_count") == 1
    assert 0 < summed(samples, "router_added_latency_seconds_sum") < 0.2
    assert summed(samples, "gen_ai_client_operation_duration_seconds_sum") >= 0.5


def test_errors_and_retries_are_counted(router, openai_server):
    openai_server.enqueue(json_reply({"error": {"message": "busy"}}, 503, retry_after_ms="1"))
    ask(router, "gpt-4o")
    openai_server.enqueue(json_reply({"error": {"message": "no"}}, 400))
    ask(router, "gpt-4o")
    samples = scraped(router.origin)
    assert summed(samples, "router_retries_total", model="gpt-4o") == 1
    assert summed(samples, "router_requests_total", status="400", outcome="failed") == 1
    assert summed(samples, "gen_ai_client_operation_duration_seconds_count", error_type="400") == 1


def test_a_circuit_that_opened_is_shown(router, openai_server):
    assert summed(scraped(router.origin), "router_circuit_open", model="gpt-4o") == 0
    for _ in range(6):
        openai_server.enqueue(json_reply({"error": {"message": "down"}}, 500, x_should_retry="false"))
    for _ in range(6):
        ask(router, "gpt-4o")
    assert summed(scraped(router.origin), "router_circuit_open", model="gpt-4o") == 1


def test_names_invented_by_clients_share_one_label(router):
    for number in range(20):
        ask(router, f"made-up-{number}")
    samples = scraped(router.origin)
    assert summed(samples, "router_requests_total", model="other") == 20
    assert not any("made-up" in str(key) for key in samples)


def test_the_number_of_series_is_bounded(tmp_path: Path):
    meter = Meter(tmp_path, ["gpt-4o-mini"])
    for number in range(MAX_SERIES + 50):
        meter.observe(make_record(number, question_type=f"type-{number}"))
    assert len(meter.counts().series) == MAX_SERIES + 1
    assert sum(series.requests for _, series in meter.counts().series) == MAX_SERIES + 50


def test_counts_are_summed_over_live_and_ended_workers(tmp_path: Path):
    meters = [Meter(tmp_path, ["gpt-4o-mini"]) for _ in range(3)]
    for number, meter in enumerate(meters):
        for n in range(number + 1):
            meter.observe(make_record(n, attempts=2))
        meter.write(meter.counts(["gpt-4o-mini"], unrecorded=1))
    now = time.time()
    together = total(read_counts(tmp_path), now)
    (series,) = together.series.values()
    assert (series.requests, series.retries, together.unrecorded) == (6, 6, 3)
    assert (together.workers, together.open_circuits) == (3, {"gpt-4o-mini": 3})
    (timing,) = together.timings.values()
    assert sum(timing.duration.counts) == 6 and timing.duration.sum == pytest.approx(9.0)
    later = total(read_counts(tmp_path), now + 60)
    assert (later.workers, later.open_circuits) == (0, {})
    assert sum(series.requests for series in later.series.values()) == 6


def test_a_file_of_another_version_does_not_break_the_scrape(tmp_path: Path):
    (tmp_path / "1-ab.json").write_text('{"series": 3}')
    assert list(read_counts(tmp_path)) == []


def test_a_stopped_worker_has_written_all_its_counts(router):
    ask(router)
    router.close()
    (counts,) = read_counts(router.home / "metrics")
    assert [series.requests for _, series in counts.series] == [1]


def test_unrecorded_requests_are_shown_even_if_no_file_can_be_written(router):
    blocked = router.home / "metrics"
    shutil.rmtree(blocked)
    blocked.write_text("no folder can be made here")
    router.app.worker.journal.unrecorded = 7
    assert summed(scraped(router.origin), "router_unrecorded_requests_total") == 7
    blocked.unlink()


def test_openmetrics_is_returned_on_request(router):
    ask(router)
    answer = httpx2.get(router.origin + "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_metrics_require_the_same_keys(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, api_keys=["rk-of-the-tests-1"])
    assert httpx2.get(router.origin + "/metrics").status_code == 401
    assert summed(scraped(router.origin, authorization="Bearer rk-of-the-tests-1"), "router_workers") == 1


def test_warnings_are_exported_as_numbers(router, start_router):
    def read_samples() -> tuple[float, ...]:
        samples = scraped(router.origin)
        warnings = [summed(samples, "router_warnings", about=subject) for subject in ("models", "policy")]
        return summed(samples, "router_policy_certified"), *warnings

    assert read_samples() == (1, 0, 0)
    router.app.worker.warnings.append("gpt-4o leaves its upstream on 2027-01-14, in 30 days: calibrate a successor")
    (router.home / "policy").mkdir()
    (router.home / "policy" / "policy.json").write_text("{}")  # promoted and invalid
    assert until(lambda: read_samples() == (1, 1, 1))
    strong_alone = scraped(start_router(default_target=1.0).origin)
    assert summed(strong_alone, "router_policy_certified") == 0


def test_counting_a_request_takes_microseconds(tmp_path: Path):
    meter = Meter(tmp_path, ["gpt-4o-mini"])
    record = make_record(1, added_ns=150_000, stream=True)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(500):
            meter.observe(record)
        best = min(best, (time.perf_counter() - start) / 500)
    assert best < 20e-6  # 3 on an idle machine


def test_the_grafana_panels_query_existing_metrics(router, openai_server):
    openai_server.enqueue(stream_reply(*chat_events("gpt-4o-mini", usage=True)))
    ask(router, stream=True)
    known = {name for name, _ in scraped(router.origin)} | {
        f"router_exporter_{name}" for name in ("behind_bytes", "behind_seconds", "failures")
    }
    folder = Path(__file__).parent.parent / "docs" / "grafana"
    dashboard = json.loads((folder / "router.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(expressions) >= 15
    for expression in expressions:
        assert any(name in expression for name in known), expression
