"""A bill over the midnight of a price change, compared with sums of exact fractions."""

from __future__ import annotations

import json
import time
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from synthetic_records import make_record

from router.journal.writer import Record
from router.policy.prices import PriceBook, day_unix_ns
from router.request.records import add_usage
from router.usage.counterfactual import read_lengths
from router.usage.ledger import Ledger
from router.usage.sums import read_question, usage

SHIPPED = json.loads((Path(__file__).parent.parent / "data" / "prices.json").read_bytes())
BOOK = PriceBook.parse(SHIPPED)
MIDNIGHT = day_unix_ns(date(2026, 7, 30))
BEFORE, AFTER = "2026-07-29", "2026-07-30"
LONG = 272_000

# Dollars per million tokens of input, cached input, cache writes and output, as OpenAI published them
LUNA = {BEFORE: ("1", "0.1", "1.25", "6"), AFTER: ("0.2", "0.02", "0.25", "1.2")}
TERRA = {BEFORE: ("2.5", "0.25", "3.125", "15"), AFTER: ("2", "0.2", "2.5", "12")}
OF_TIER = {"": Fraction(1), "default": Fraction(1), "flex": Fraction(1, 2), "priority": Fraction(2)}

POLICY = {
    "models": [
        {"name": name, "price": {"usd_per_million_input_tokens": 1, "usd_per_million_output_tokens": 1}}
        for name in ("gpt-5.6-luna", "gpt-5.6-terra")
    ],
    "evidence": {
        "arithmetic": {
            "kind": "measured",
            "n": 400,
            "quality": {},
            "quality_difference": [0, 0, 0],
            "output_tokens": {"gpt-5.6-luna": 100.0, "gpt-5.6-terra": 150.0},
        }
    },
}
LENGTHS = read_lengths(msgspec.json.encode(POLICY))
TIMES = Fraction(150, 100)  # output tokens of terra per token of luna

SECOND = 10**9
# nanoseconds from midnight, tier, input, cached, written to the cache, output
REQUESTS = [
    (-24 * 3600 * SECOND, "", 1_003, 0, 0, 202),  # the first moment of the day before
    (-3600 * SECOND, "default", 20_011, 12_800, 0, 1_010),
    (-60 * SECOND, "flex", 50_021, 0, 48_000, 2_004),
    (-SECOND, "priority", 9_001, 1_024, 2_048, 600),
    (-1_000, "", 271_999, 128_000, 64_000, 3_000),
    (-200, "", LONG, 0, 0, 800),  # the longest request at the base price
    (-1, "", LONG + 1, 200_000, 70_000, 4_002),  # the last nanosecond, all at the price of long requests
    (0, "", LONG + 1, 200_000, 70_000, 4_002),  # the first
    (1, "flex", LONG + 1, 0, 272_000, 12),
    (200, "", LONG, 0, 0, 800),
    (SECOND, "priority", 9_001, 1_024, 2_048, 600),
    (60 * SECOND, "flex", 50_021, 0, 48_000, 2_004),
    (3600 * SECOND, "default", 20_011, 12_800, 0, 1_010),
    (24 * 3600 * SECOND - 1, "", 1_003, 0, 0, 202),  # the last nanosecond of the day
]


def day_of(offset: int) -> str:
    return BEFORE if offset < 0 else AFTER


def dollars(prices: tuple[str, ...], tier: str, input_tokens: int, cached: int, stored: int, written: int) -> Fraction:
    """Exact dollars, computed independently of the router."""
    of_input, of_cached, of_stored, of_output = map(Fraction, prices)
    input_usd = (input_tokens - cached - stored) * of_input + cached * of_cached + stored * of_stored
    output_usd = written * of_output
    if input_tokens > LONG:
        input_usd, output_usd = 2 * input_usd, Fraction(3, 2) * output_usd
    return OF_TIER[tier] * (input_usd + output_usd) / 1_000_000


def exact(prices: dict[str, tuple[str, ...]], day: str | None = None, times: Fraction = Fraction(1)) -> Fraction:
    """The exact sum over the requests of a day or of both, with answers `times` as long."""
    return sum(
        (
            dollars(prices[day_of(offset)], tier, input_tokens, cached, stored, round(written * times))
            for offset, tier, input_tokens, cached, stored, written in REQUESTS
            if day in (None, day_of(offset))
        ),
        Fraction(0),
    )


def priced(book: PriceBook = BOOK) -> list[Record]:
    """The records of the requests."""
    records = []
    for number, (offset, tier, input_tokens, cached, stored, written) in enumerate(REQUESTS):
        start = MIDNIGHT + offset
        record = make_record(
            number,
            model="gpt-5.6-luna",
            started_unix_ns=start,
            first_byte_unix_ns=start + SECOND,
            ended_unix_ns=start + 2 * SECOND,  # an answer that ends on the next day belongs to the day of its request
            usage=None,
            cost_usd=None,
        )
        billed = {
            "prompt_tokens": input_tokens,
            "completion_tokens": written,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": stored},
        }
        add_usage(record, book, "gpt-5.6-luna", billed, tier)
        records.append(record)
    return records


@pytest.fixture
def ledger(tmp_path):
    ledger_of_test = Ledger(f"sqlite:///{tmp_path / 'usage.db'}", BOOK, lambda version: LENGTHS)
    yield ledger_of_test
    ledger_of_test.engine.dispose()


def bill(ledger: Ledger, first_day: str = "", last_day: str = "") -> dict:
    return usage(ledger.engine, read_question(first_day, last_day, "day"))


def near(dollars: Fraction) -> object:
    return pytest.approx(float(dollars), rel=0, abs=1e-9)


def test_each_request_has_the_price_of_its_day():
    for record, (offset, tier, *tokens) in zip(priced(), REQUESTS, strict=True):
        assert record.cost_usd == near(dollars(LUNA[day_of(offset)], tier, *tokens)), (offset, tier)


def test_a_bill_over_a_price_change_is_exact_by_day_and_in_total(ledger):
    ledger.write(priced())
    answer = bill(ledger)
    assert [(row["day"], row["requests"]) for row in answer["rows"]] == [(BEFORE, 7), (AFTER, 7)]
    for row in answer["rows"]:
        assert row["cost_usd"] == near(exact(LUNA, row["day"]))
        assert round(row["cost_usd"], 2) == round(float(exact(LUNA, row["day"])), 2)
    assert answer["total"]["cost_usd"] == near(exact(LUNA))
    assert answer["total"]["unknown_cost_requests"] == 0
    before, after = (exact(LUNA, day) for day in (BEFORE, AFTER))
    assert before > 2 * after  # the days differ by more than rounding


def test_the_bill_of_a_single_day_has_its_own_sum(ledger):
    ledger.write(priced())
    for day in (BEFORE, AFTER):
        answer = bill(ledger, day, day)
        assert [row["day"] for row in answer["rows"]] == [day]
        assert answer["total"]["cost_usd"] == near(exact(LUNA, day))


def test_the_strong_only_cost_uses_the_prices_of_each_day(ledger):
    ledger.write(priced())
    answer = bill(ledger)
    for row in answer["rows"]:
        strong, paid = exact(TERRA, row["day"], TIMES), exact(LUNA, row["day"])
        assert row["always_strong_usd"]["estimate"] == near(strong)
        assert row["saved_usd"]["estimate"] == near(strong - paid)
    assert answer["total"]["always_strong_usd"]["estimate"] == near(exact(TERRA, times=TIMES))


def test_the_same_request_costs_a_fifth_one_nanosecond_later():
    by_offset = dict(zip((offset for offset, *_ in REQUESTS), priced(), strict=True))
    last, first = by_offset[-1], by_offset[0]
    assert (last.usage, first.started_unix_ns - last.started_unix_ns) == (first.usage, 1)
    assert first.cost_usd == pytest.approx(last.cost_usd / 5, rel=1e-12)


def test_exporting_again_after_a_price_change_keeps_the_first_prices(ledger):
    records = priced()
    ledger.write(records)
    first = bill(ledger)
    dearer = json.loads(json.dumps(SHIPPED))
    for row in dearer["models"].values():
        for period in (row, *row.get("earlier", ())):
            for price in (period, *period.get("tiers", {}).values()):
                price.update({key: 100 * usd for key, usd in price.items() if key.startswith("usd_")})
    later = Ledger(str(ledger.engine.url), PriceBook.parse({**dearer, "as_of": "2027-01-01"}), lambda version: LENGTHS)
    later.write(records)
    later.write(priced(PriceBook.parse(dearer)))  # nor do repriced records
    assert bill(later) == first
    with later.engine.connect() as connection:
        days = connection.execute(sa.text("SELECT DISTINCT prices_as_of FROM router_requests")).scalars().all()
    assert days == [SHIPPED["as_of"]]
    later.engine.dispose()


def test_a_late_export_uses_the_price_of_the_requests_day(ledger):
    weeks_later = MIDNIGHT + int(timedelta(weeks=6).total_seconds()) * SECOND
    late = Ledger(str(ledger.engine.url), PriceBook.parse(SHIPPED, weeks_later), lambda version: LENGTHS)
    late.write(priced(PriceBook.parse(SHIPPED, weeks_later)))
    answer = bill(late)
    assert answer["total"]["cost_usd"] == near(exact(LUNA))
    assert answer["total"]["always_strong_usd"]["estimate"] == near(exact(TERRA, times=TIMES))
    late.engine.dispose()


@pytest.fixture
def los_angeles(monkeypatch):
    """Set a time zone seven hours behind UTC."""
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_days_and_prices_use_utc_in_every_time_zone(los_angeles, ledger):
    ledger.write(priced(PriceBook.parse(SHIPPED)))
    rows = bill(ledger)["rows"]
    assert [(row["day"], row["cost_usd"]) for row in rows] == [(day, near(exact(LUNA, day))) for day in (BEFORE, AFTER)]
