import csv
import io
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import sqlalchemy as sa
from servers import postgresql
from synthetic_records import START, make_record

from calibration.spending import record_spending
from router.journal.writer import Feedback, Gap
from router.policy.prices import PriceBook
from router.policy.usage import Usage
from router.usage.counterfactual import always_strong_usd, read_lengths
from router.usage.ledger import (
    CalibrationSpending,
    Ledger,
    add_spending,
    make_tables,
    metadata,
    pending_feedback,
    requests,
    settle_feedback,
)
from router.usage.sums import UsageError, as_csv, read_question, usage

PRICES = PriceBook.parse(
    {
        "as_of": "2026-11-23",
        "source": "a test",
        "models": {
            "gpt-4o-mini": {"usd_per_million_input_tokens": 0.15, "usd_per_million_output_tokens": 0.6},
            "gpt-4o": {
                "usd_per_million_input_tokens": 2.5,
                "usd_per_million_output_tokens": 10.0,
                "tiers": {"batch": {"usd_per_million_input_tokens": 1.25, "usd_per_million_output_tokens": 5.0}},
            },
        },
    }
)
POLICY = {
    "models": [{"name": name, "price": {"usd_per_million_input_tokens": 1, "usd_per_million_output_tokens": 1}}
               for name in ("gpt-4o-mini", "gpt-4o")],
    "evidence": {
        "arithmetic": {"kind": "measured", "n": 400, "quality": {}, "quality_difference": [0, 0, 0],
                       "output_tokens": {"gpt-4o-mini": 100.0, "gpt-4o": 80.0}},
        "poems": {"kind": "measured", "n": 100, "quality": {}, "quality_difference": [0, 0, 0],
                  "output_tokens": {"gpt-4o-mini": 100.0, "gpt-4o": 130.0}},
        "published": {"kind": "published", "n": 30, "quality": {}, "quality_difference": [0, 0, 0],
                      "output_tokens": {}},
    },
}  # fmt: skip
LENGTHS = read_lengths(msgspec.json.encode(POLICY))
IMAGE_MODELS = [
    {**model, "image_tokens": tokens} for model, tokens in zip(POLICY["models"], ((2833, 5667), (85, 170)), strict=True)
]


DOLLARS = ("cost_usd", "always_strong_usd", "saved_usd")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'usage.db'}"


@pytest.fixture
def ledger(url):
    ledger_created = Ledger(url, PRICES, lambda version: LENGTHS)
    yield ledger_created
    ledger_created.engine.dispose()


def query_usage(ledger: Ledger, first_day: str = "", last_day: str = "", group_by: str = "") -> dict:
    return usage(ledger.engine, read_question(first_day, last_day, group_by))


def test_a_request_is_counted_once_however_often_it_is_written(ledger):
    records = [make_record(number) for number in range(10)]
    ledger.write(records)
    ledger.write(records[5:])
    total = query_usage(ledger)["total"]
    assert total["requests"] == total["answered"] == 10
    assert total["input_tokens"] == sum(1000 + 12 * number for number in range(10))
    assert total["cached_input_tokens"] == 4000
    assert total["cost_usd"] == pytest.approx(sum(record.cost_usd for record in records), rel=1e-12)


def test_every_kind_of_token_is_stored_as_billed(ledger):
    billed = {
        "prompt_tokens": 900,
        "completion_tokens": 90,
        "prompt_tokens_details": {
            "cached_tokens": 100,
            "cache_write_tokens": 60,
            "audio_tokens": 30,
            "image_tokens": 500,
        },
        "completion_tokens_details": {"reasoning_tokens": 40, "audio_tokens": 20},
    }
    ledger.write([make_record(1, usage=msgspec.to_builtins(Usage.from_openai(billed)))])
    total = query_usage(ledger)["total"]
    assert {name: total[name] for name in total if name.endswith("_tokens")} == {
        "input_tokens": 900,
        "output_tokens": 90,
        "cached_input_tokens": 100,
        "reasoning_tokens": 40,
        "audio_input_tokens": 30,
        "audio_output_tokens": 20,
        "image_input_tokens": 500,
        "cache_write_tokens": 60,
    }


def test_an_unknown_price_is_not_counted_as_zero(ledger):
    ledger.write([make_record(1, model="new-model", cost_usd=None)])
    answer = query_usage(ledger, group_by="model")
    assert answer["rows"][0]["cost_usd"] is None
    assert answer["rows"][0]["unknown_cost_requests"] == 1
    assert "new-model,1" in as_csv(answer)
    ledger.write([make_record(2)])
    total = query_usage(ledger)["total"]
    assert total["cost_usd"] == make_record(2).cost_usd
    assert total["unknown_cost_requests"] == 1


def test_the_cost_of_abandoned_and_interrupted_requests_is_unknown(ledger):
    unknown_usage = {"model": "gpt-4o", "usage": None, "cost_usd": None}
    ledger.write(
        [
            make_record(1, wasted=[unknown_usage, unknown_usage]),
            make_record(2, outcome="abandoned", status=499, usage=None, cost_usd=None),
        ]
    )
    total = query_usage(ledger)["total"]
    assert (total["unknown_cost_attempts"], total["unknown_cost_requests"]) == (2, 1)
    assert total["cost_usd"] == make_record(1).cost_usd and total["wasted_usd"] == 0


def strong_usd(model: str, question_type: str, used: Usage, tier: str = "", **fields: object):
    record = make_record(1, model=model, question_type=question_type, service_tier=tier, **fields)
    return always_strong_usd(LENGTHS, PRICES, record, used)


def test_an_image_has_the_tokens_that_the_strong_model_bills():
    lengths = read_lengths(msgspec.json.encode({**POLICY, "models": IMAGE_MODELS}))
    billed = Usage(100 + 2833 + 4 * 5667, 500, cached_input_tokens=2000)
    record = make_record(1, text_tokens=100)
    strong = always_strong_usd(lengths, PRICES, record, billed)
    image_tokens = 100 + 85 + 4 * 170
    assert strong.estimate == pytest.approx(image_tokens * 2.5e-6 + 400 * 10e-6, rel=0.01)


def test_the_strong_only_cost_uses_the_strong_models_answer_lengths():
    strong = strong_usd("gpt-4o-mini", "arithmetic", Usage(1000, 500))
    assert strong.estimate == pytest.approx(1000 * 2.5e-6 + 400 * 10e-6)
    assert strong.low < strong.estimate < strong.high
    itself = strong_usd("gpt-4o", "arithmetic", Usage(1000, 500))
    assert itself.low == itself.high == pytest.approx(1000 * 2.5e-6 + 500 * 10e-6)


def test_a_type_without_measured_lengths_uses_those_of_all_types():
    strong = strong_usd("gpt-4o-mini", "published", Usage(0, 1000))
    pooled = (400 * 80 + 100 * 130) / (500 * 100)
    assert strong == pytest.approx((800 * 10e-6, round(1000 * pooled) * 10e-6, 1300 * 10e-6))
    assert strong_usd("somebody-elses", "arithmetic", Usage(0, 1000)) is None


def test_savings_are_net_of_retries_unused_answers_and_calibration(ledger):
    good = make_record(1, usage={"input_tokens": 1000, "output_tokens": 500}, cost_usd=0.00045)
    retried = make_record(
        2, usage={"input_tokens": 0, "output_tokens": 0}, cost_usd=0.0, wasted=[{"model": "gpt-4o", "cost_usd": 0.002}]
    )
    abandoned = make_record(3, outcome="abandoned", status=499, cost_usd=0.0005)
    passed = make_record(4, policy_version="", reason="passed_through")
    ledger.write([good, retried, abandoned, passed])
    add_spending(ledger.engine, "run-1", 0.25)
    add_spending(ledger.engine, "run-1", 0.25)
    total = query_usage(ledger)["total"]
    strong = 1000 * 2.5e-6 + 400 * 10e-6
    assert total["always_strong_usd"]["estimate"] == pytest.approx(strong)
    assert total["saved_usd"]["estimate"] == pytest.approx(strong - 0.00045 - 0.002 - 0.0005)
    assert total["saved_usd"]["low"] < total["saved_usd"]["estimate"] < total["saved_usd"]["high"]
    assert total["net_saved_usd"]["estimate"] == pytest.approx(total["saved_usd"]["estimate"] - 0.25)
    assert total["wasted_usd"] == 0.002
    assert total["vain_usd"] == 0.0005


def test_the_cost_of_a_calibration_is_booked_once(ledger, tmp_path):
    file = tmp_path / "spending.jsonl"
    spending = CalibrationSpending(ledger.engine, file)
    spending.book()  # there was none yet
    record_spending(file, 1.25)
    record_spending(file, 0.0)
    spending.book()
    record_spending(file, 0.5)
    spending.book()
    CalibrationSpending(ledger.engine, file).book()  # as after a restart
    assert query_usage(ledger)["total"]["calibration_usd"] == 1.75


def test_a_service_tier_has_its_own_price_and_an_unlisted_tier_has_none():
    usage = Usage(1_000_000, 100_000)
    assert PRICES.cost_usd("gpt-4o", usage) == PRICES.cost_usd("gpt-4o", usage, "default") == pytest.approx(3.5)
    assert PRICES.cost_usd("gpt-4o", usage, "batch") == pytest.approx(1.75)
    assert PRICES.cost_usd("gpt-4o", usage, "priority") is None
    assert PRICES.cost_usd("gpt-4o-mini", usage, "batch") is None


def test_simulated_requests_are_separate_from_billed_ones(ledger):
    ledger.write([make_record(1)])
    billed = query_usage(ledger)["total"]
    assert (billed["simulated_requests"], billed["simulated_usd"]) == (0, 0.0)
    ledger.write([make_record(2, simulated=True), make_record(3, simulated=True, cost_usd=None)])
    total = query_usage(ledger)["total"]
    assert total["simulated_requests"] == 2
    assert 0 < total["simulated_usd"] == pytest.approx(total["cost_usd"] - billed["cost_usd"])


def test_usage_is_grouped_and_limited_by_day(ledger):
    day = 86_400 * 10**9
    ledger.write(
        [
            make_record(number, started_unix_ns=START + (number % 3) * day, user=f"u{number % 2}", key_id="k")
            for number in range(12)
        ]
    )
    days = query_usage(ledger, group_by="day")
    assert [row["requests"] for row in days["rows"]] == [4, 4, 4]
    grouped = query_usage(ledger, group_by="user,day")
    assert [(row["user"], row["requests"]) for row in grouped["rows"]] == [("u0", 2)] * 3 + [("u1", 2)] * 3
    first = days["rows"][0]["day"]
    assert query_usage(ledger, first_day=first, last_day=first)["total"]["requests"] == 4
    assert query_usage(ledger, first_day=first, last_day=first + "T00:00:00")["total"]["requests"] == 0
    assert grouped["prices"] == [{"as_of": "2026-11-23", "source": "a test"}]


@pytest.mark.parametrize(
    ("first_day", "last_day", "group_by"), [("yesterday", "", ""), ("", "2026-13-01", ""), ("", "", "model,shoe")]
)
def test_an_invalid_query_is_rejected_with_a_reason(first_day, last_day, group_by):
    with pytest.raises(UsageError, match=r"from|to|group_by"):
        read_question(first_day, last_day, group_by)


def test_a_spreadsheet_executes_no_cell_of_the_csv(ledger):
    ledger.write([make_record(1, user="=HYPERLINK(1)"), make_record(2, user='a "b", c')])
    rows = list(csv.DictReader(io.StringIO(as_csv(query_usage(ledger, group_by="user")))))
    assert {row["user"] for row in rows} == {"'=HYPERLINK(1)", 'a "b", c'}
    assert all(float(row["cost_usd"]) > 0 for row in rows)
    assert float(rows[0]["saved_usd_low"]) < float(rows[0]["saved_usd_high"])


def test_unrecorded_requests_are_counted(ledger):
    gap = Gap(since_unix_ns=START, until_unix_ns=START + 5, requests=17)
    ledger.write([gap])
    ledger.write([gap])
    assert query_usage(ledger)["total"]["unrecorded_requests"] == 17


def test_feedback_is_pending_until_it_is_an_assessment(ledger):
    feedback = Feedback(feedback_id="f" * 32, trace_id="a" * 32, unix_ns=START, score=1.0, thumbs="up", comment="right")
    assert pending_feedback(ledger.engine, 10) == []
    ledger.write([feedback])
    ledger.write([feedback])
    assert pending_feedback(ledger.engine, 10) == [feedback]
    settle_feedback(ledger.engine, [feedback.feedback_id], "assessed")
    assert pending_feedback(ledger.engine, 10) == []


def test_texts_that_a_database_rejects_are_repaired(ledger):
    ledger.write([make_record(1, user="nul\x00 and half \ud800")])
    assert query_usage(ledger, group_by="user")["rows"][0]["user"] == "nul and half ?"


@pytest.fixture
def postgresql_url():
    with postgresql() as url:
        yield f"{url}/postgres"


def test_postgresql_stores_the_same_rows(postgresql_url, ledger):
    other = Ledger(postgresql_url, PRICES, lambda version: LENGTHS)
    records = [make_record(number, user=f"u{number % 2}") for number in range(20)]
    for tables in (ledger, other):
        tables.write([*records, Gap(since_unix_ns=1, until_unix_ns=2, requests=3)])
        tables.write(records)
    for other_row, row in zip(
        query_usage(other, group_by="user")["rows"], query_usage(ledger, group_by="user")["rows"], strict=True
    ):
        assert {**other_row, **dict.fromkeys(DOLLARS)} == {**row, **dict.fromkeys(DOLLARS)}
        assert all(other_row[name] == pytest.approx(row[name], rel=1e-12) for name in DOLLARS)  # added in another order
    with other.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(requests)) == 20
    other.engine.dispose()


def test_replicas_that_start_at_once_create_the_tables_without_conflict(postgresql_url):
    engines = [sa.create_engine(postgresql_url) for _ in range(8)]
    try:
        for _ in range(4):
            metadata.drop_all(engines[0])
            with ThreadPoolExecutor(len(engines)) as pool:
                list(pool.map(make_tables, engines))
    finally:
        for engine in engines:
            engine.dispose()


def test_missing_columns_are_added_to_tables_of_an_earlier_version(ledger, url):
    ledger.write([make_record(1)])
    with ledger.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE router_requests DROP COLUMN cache_write_tokens"))
    later = Ledger(url, PRICES, lambda _: None)
    usage = {"input_tokens": 2000, "output_tokens": 5, "cache_write_tokens": 1500}
    later.write([make_record(2, usage=usage)])
    total = query_usage(later)["total"]
    assert (total["requests"], total["cache_write_tokens"]) == (2, 1500)
